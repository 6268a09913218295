"""Pruning by a threshold in ONNX, each image with rows of its own number.

Names written here per block are stable: `kept`, `prune_threshold`.
"""

from __future__ import annotations

from dataclasses import replace

from ltmp_export.graph import slots
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.packed import Candidates
from ltmp_export.steps.prune.step import Prune


def write(g: GraphBuilder, step: Prune, tokens: Candidates) -> Candidates:
    """Drop slots whose importance is not above the threshold; protected ones stay.

    Of none protected the first of the highest importance does. An empty slot has an importance of
    exactly 0, since nothing attends to it, and a merged source has `LOWEST`: neither is above a
    threshold in [0, 1].
    """
    if tokens.importance is None:
        raise ValueError("pruning needs importance")
    above = g.op("Greater", tokens.importance, g.number(step.threshold, "prune_threshold"))
    stays = slots.spared(g, tokens.importance, tokens.layout.position, tokens.layout.protected)
    return replace(tokens, alive=g.op("Or", above, stays, name="kept"), gaps=True)
