"""PatchMerger in ONNX, all images with the same number of slots."""

from __future__ import annotations

from dataclasses import replace

from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.slots import Slots
from ltmp_export.steps.patch_merge.step import PatchMerge


def write(g: GraphBuilder, step: PatchMerge, tokens: Slots) -> Slots:
    """Tokens [B, N, C] → [B, protected + M, C], the patches mixed anew, see `PatchMerge`."""
    x, protected = tokens.x, tokens.protected
    weight, bias = (g.weight(f"{step.name}.norm.{part}") for part in ("weight", "bias"))
    patches = g.slice(x, 1, protected) if protected else x
    normed = g.layer_norm(patches, weight, bias, step.eps)
    queries = g.op("Transpose", g.weight(f"{step.name}.queries"), perm=[1, 0])  # [C, M]
    scores = g.op("Mul", g.op("MatMul", normed, queries), g.number(step.scale))  # [B, N, M]
    shares = g.op("Softmax", g.op("Transpose", scores, perm=[0, 2, 1]), axis=-1)
    mixed = g.op("MatMul", shares, normed)  # [B, M, C]
    if protected:
        mixed = g.op("Concat", g.slice(x, 1, 0, protected), mixed, axis=1)
    return replace(tokens, number=protected + step.tokens, x=mixed, size=None)
