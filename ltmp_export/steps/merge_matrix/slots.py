"""Merging by a constant matrix and recovering in ONNX, all images with the same slots."""

from __future__ import annotations

from dataclasses import replace

from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.slots import Slots
from ltmp_export.steps.merge_matrix.step import MergeMatrix


def write(g: GraphBuilder, step: MergeMatrix, tokens: Slots) -> Slots:
    """Tokens [B, N, C] → [B, n, C]."""
    x = g.op("MatMul", g.weight(f"{step.name}.merge_matrix"), tokens.x)
    return replace(tokens, number=step.tokens, x=x, size=None)


def restore(g: GraphBuilder, step: MergeMatrix, given: Slots, made: Slots, left: Slots) -> Slots:
    """What the block made of them [B, n, C] → all tokens [B, N, C] again."""
    recovered = g.op("MatMul", g.weight(f"{step.name}.recover_matrix"), left.x)
    passing = g.op("Sub", g.number(1.0), g.weight(f"{step.name}.token_mask"))  # [N]
    kept = g.op("Mul", g.op("Unsqueeze", passing, g.ints(1)), given.x)
    return replace(given, x=g.op("Add", recovered, kept))
