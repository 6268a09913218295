"""Pruning a fixed number in ONNX, all images with the same number of slots.

The name written here per block is stable: `order`, slots by importance.
"""

from __future__ import annotations

from ltmp_export.graph import selected, slots
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.slots import Slots
from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.steps.prune_least.step import PruneLeast


def write(g: GraphBuilder, step: PruneLeast, tokens: Slots) -> Slots:
    """Sort by importance, protected tokens first, and drop the last."""
    number, protected = tokens.number - step.count, tokens.protected
    score = tokens.score(IMPORTANCE)
    others = g.slice(score, 1, protected) if protected else score
    names = ("sorted", "sorted_places" if protected else "order")
    _, places = g.ops("TopK", others, g.ints(number - protected), names=names, axis=1)
    order = (
        selected.behind_protected(g, places, protected, number - protected) if protected else places
    )
    return slots.taken(g, tokens, order, number)
