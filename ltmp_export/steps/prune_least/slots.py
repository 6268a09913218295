"""Pruning a fixed number in ONNX, all images with the same number of slots.

The name written here per block is stable: `order`, slots by importance.
"""

from __future__ import annotations

from ltmp_export.graph import slots
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.slots import Slots
from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.steps.prune_least.step import PruneLeast


def write(g: GraphBuilder, step: PruneLeast, tokens: Slots) -> Slots:
    """Sort by importance, the class token first, and drop the last."""
    number = tokens.number - step.count
    others = g.slice(tokens.score(IMPORTANCE), 1, 1)
    names = ("sorted", "sorted_places")
    _, places = g.ops("TopK", others, g.ints(number - 1), names=names, axis=1)
    after = g.op("Add", places, g.index(1))
    order = g.op("Pad", after, g.ints(0, 1, 0, 0), name="order")  # 0, the class token, in front
    return slots.taken(g, tokens, order, number)
