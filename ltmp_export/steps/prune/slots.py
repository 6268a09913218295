"""Pruning by a threshold in ONNX, all images with the same number of slots.

Names written here per block are stable: `kept`, `prune_threshold`.
"""

from __future__ import annotations

from dataclasses import replace

from ltmp_export.graph import slots
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.slots import Slots
from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.steps.prune.step import Prune


def write(g: GraphBuilder, step: Prune, tokens: Slots) -> Slots:
    """Drop slots whose importance is not above the threshold; slot 0, the class token, stays."""
    threshold = g.number(step.threshold, "prune_threshold")
    above = g.op("Greater", tokens.score(IMPORTANCE), threshold)
    important = g.op("Or", above, slots.is_class(g, tokens.number))
    kept = g.op("And", important, slots.alive(tokens), name="kept")
    return replace(tokens, alive=kept, packed=False)
