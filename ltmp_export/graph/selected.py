"""Slots of which a step keeps some, in ONNX: the protected ones in front, then those it names."""

from __future__ import annotations

from dataclasses import replace

from ltmp_export.graph import slots
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.slots import Slots


def kept(g: GraphBuilder, tokens: Slots, patches: Name, number: int) -> Slots:
    """The protected slots, and behind them these patches [B, number]; no scores any more."""
    places = g.op("Add", patches, g.index(tokens.protected))
    stay = slots.taken(g, replace(tokens, scores={}, metric=None), places, number)
    front = g.slice(tokens.x, 1, 0, tokens.protected)
    return replace(
        stay,
        number=tokens.protected + number,
        x=g.op("Concat", front, stay.x, axis=1) if tokens.protected else stay.x,
        came=slots.with_protected(g, tokens, stay.came),
    )


def behind_protected(g: GraphBuilder, places: Name, protected: int, number: int) -> Name:
    """[B, n] places of others, counted behind the protected → [B, P + n] slots, these in front.

    Written as `order`.
    """
    after = g.op("Add", places, g.index(protected))
    if protected == 1:
        return g.op("Pad", after, g.ints(0, 1, 0, 0), name="order")
    padded = g.op("Pad", after, g.ints(0, protected, 0, 0))
    own = g.ints(*range(protected), *(0,) * number)
    return g.op("Add", padded, own, name="order")
