"""A budget in ONNX, all images with the same number of slots.

Names written here per block are stable: `fitted`, the slots that stay; `count`, `dropped`.
"""

from __future__ import annotations

from dataclasses import replace

from onnx import TensorProto

from ltmp_export.graph import slots
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.ragged import LOWEST
from ltmp_export.graph.slots import Slots
from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.steps.fit.step import Fit


def write(g: GraphBuilder, step: Fit, tokens: Slots) -> Slots:
    """The living in front, in their order; where they are more than `keep`, the most important."""
    living = g.op("Cast", slots.alive(tokens), to=TensorProto.INT64)
    found = g.reduce("ReduceSum", living, [1])  # [B]
    count = g.op("Min", found, g.ints(step.keep), name="count")
    dropped = g.op("Sub", found, count, name="dropped")
    rank = g.op("Where", slots.alive(tokens), tokens.score(IMPORTANCE), g.number(-1.0))
    if tokens.protected:
        stays = slots.in_protected(g, g.counting(tokens.number), tokens.protected)
        rank = g.op("Where", stays, g.number(-LOWEST), rank)
    names = ("most_important", "most_important_places")
    _, best = g.ops("TopK", rank, g.ints(step.keep), names=names, axis=1)
    chosen = g.op("GatherElements", slots.numbered(g, tokens), best, axis=1)  # [B, step.keep]
    fitted = g.op(
        "Mod", slots.ascending(g, chosen, step.keep), g.index(tokens.number), name="fitted"
    )
    return replace(slots.taken(g, tokens, fitted, step.keep), count=count, dropped=dropped)
