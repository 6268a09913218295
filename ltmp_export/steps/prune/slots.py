"""Pruning by a threshold in ONNX, all images with the same number of slots.

Names written here per block are stable: `kept`, `prune_threshold`.
"""

from __future__ import annotations

from dataclasses import replace

from ltmp_export.graph import slots
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.ragged import LOWEST
from ltmp_export.graph.slots import Slots
from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.steps.prune.step import Prune


def write(g: GraphBuilder, step: Prune, tokens: Slots) -> Slots:
    """Drop slots whose importance is not above the threshold; protected ones stay.

    Of none protected the first living one of the highest importance does.
    """
    threshold = g.number(step.threshold, "prune_threshold")
    importance = tokens.score(IMPORTANCE)
    above = g.op("Greater", importance, threshold)
    if not tokens.protected:
        importance = g.op("Where", slots.alive(tokens), importance, g.number(LOWEST))
    stays = slots.spared(g, importance, g.counting(tokens.number), tokens.protected)
    important = g.op("Or", above, stays)
    kept = g.op("And", important, slots.alive(tokens), name="kept")
    return replace(tokens, alive=kept, packed=False)
