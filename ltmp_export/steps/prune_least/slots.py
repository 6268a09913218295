"""Pruning a fixed number in ONNX, all images with the same number of slots.

The name written here per block is stable: `order`, slots by importance.
"""

from __future__ import annotations

from ltmp_export.graph import slots
from ltmp_export.graph.builder import GraphBuilder, Name
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
    order = _behind(g, places, protected, number) if protected else places
    return slots.taken(g, tokens, order, number)


def _behind(g: GraphBuilder, places: Name, protected: int, number: int) -> Name:
    """[B, n - P] places of the others → [B, n] slots, the protected in front."""
    after = g.op("Add", places, g.index(protected))
    if protected == 1:
        return g.op("Pad", after, g.ints(0, 1, 0, 0), name="order")
    padded = g.op("Pad", after, g.ints(0, protected, 0, 0))
    own = g.ints(*range(protected), *(0,) * (number - protected))
    return g.op("Add", padded, own, name="order")
