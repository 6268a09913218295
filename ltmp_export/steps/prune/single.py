"""Pruning by a threshold in ONNX, of one image.

Names written here per block are stable: `stays`, `prune_threshold`.
"""

from __future__ import annotations

from ltmp_export.graph import single
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.single import Single
from ltmp_export.steps.prune.step import Prune


def write(g: GraphBuilder, step: Prune, tokens: Single) -> Single:
    """Drop rows whose importance is not above the threshold; protected ones stay.

    Of none protected the first of the highest importance does. A merged source has an importance of
    0, which is not above a threshold in [0, 1].
    """
    if tokens.importance is None:
        raise ValueError("pruning needs importance")
    importance, front = tokens.importance, single.above_all(g, tokens.protected)
    if front and not tokens.spares:
        importance = g.op("Concat", *front, g.slice(importance, 0, tokens.protected), axis=0)
    threshold = g.number(step.threshold, "prune_threshold")
    if front:
        stays = g.op("Greater", importance, threshold, name="stays")
    else:
        places = g.op("Range", g.index(0), g.op("Squeeze", g.op("Shape", importance)), g.index(1))
        most = g.op("Equal", places, g.op("ArgMax", importance, axis=0, keepdims=1))
        stays = g.op("Or", g.op("Greater", importance, threshold), most, name="stays")
    return single.selected(g, tokens, stays)
