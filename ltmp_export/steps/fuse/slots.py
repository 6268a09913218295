"""Keeping what the class token attends to in ONNX, all images with the same number of slots.

The name written here per block is stable: `ranking`, the patch tokens by that attention.
"""

from __future__ import annotations

from ltmp_export.graph import slots
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.positions import Positions
from ltmp_export.graph.slots import Slots
from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.steps.fuse.step import Fuse


def write(g: GraphBuilder, step: Fuse, tokens: Slots) -> Slots:
    """Keep some, and fuse the rest."""
    protected, patches = tokens.protected, tokens.number - tokens.protected
    kept = step.kept(tokens.number, protected)
    score = g.slice(tokens.score(CLASS_ATTENTION), 1, protected)  # [B, n]
    _, ranking = g.ops("TopK", score, g.ints(patches), names=("ranked", "ranking"), axis=1)
    places = g.op("Add", ranking, g.index(protected))
    stay = slots.taken(g, tokens, g.slice(places, 1, 0, kept), kept)
    parts = [g.slice(tokens.x, 1, 0, protected), stay.x]
    where = [_first(g, tokens), stay.positions]
    came, merges = slots.with_protected(g, tokens, stay.came), tuple[tuple[Name, Name], ...]()
    if step.fused:
        others = g.slice(places, 1, kept)  # [B, n - K]
        weights = g.op("GatherElements", score, g.slice(ranking, 1, kept), axis=1)
        rest = slots.taken(g, tokens, others, patches - kept)
        parts.append(g.op("MatMul", g.op("Unsqueeze", weights, g.ints(1)), rest.x))  # [B, 1, C]
        where.append(_fused(g, rest.positions))
        if came is not None and rest.came is not None:  # the first of them stands for all
            one = g.slice(rest.came, 1, 0, 1)
            merges = ((rest.came, g.op("Expand", one, g.op("Shape", rest.came))),)
            came = g.op("Concat", came, one, axis=1)
    x = g.op("Concat", *parts, axis=1)
    number = step.after(tokens.number, protected)
    return Slots(
        number, x, None, {}, None, None, protected=protected, positions=slots.joined(g, where),
        came=came, merges=merges,
    )  # fmt: skip


def _first(g: GraphBuilder, tokens: Slots) -> Positions | None:
    """Where the protected slots lie."""
    if tokens.positions is None:
        return None
    return tokens.positions.taken(lambda rows: g.slice(rows, 1, 0, tokens.protected))


def _fused(g: GraphBuilder, where: Positions | None) -> Positions | None:
    """Where the token lies that has become of others, which stand in the order of their scores."""
    if where is None:
        return None
    if where.summed:
        return where.taken(lambda rows: g.reduce("ReduceSum", rows, [1], keepdims=True))
    return where.taken(lambda rows: g.slice(rows, 1, 0, 1))
