"""Merging patches into the crucial ones in ONNX, all images with the same number of slots.

Names written here per block are stable: `ranking`, the patches by the class token's attention, and
`partner`, of those that do not stay in their own order, among those that do.
"""

from __future__ import annotations

from dataclasses import replace

from onnx import TensorProto

from ltmp_export.graph import slots, sums
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.positions import Positions
from ltmp_export.graph.slots import Slots
from ltmp_export.graph.unit import unit
from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.steps.mergence.step import IMPORTANCE, SIMILARITY, SIZE, UNIFORM, Mergence


def write(g: GraphBuilder, step: Mergence, tokens: Slots) -> Slots:
    """Keep some, merge each other into one of them."""
    protected, patches = tokens.protected, tokens.number - tokens.protected
    score = g.slice(tokens.score(CLASS_ATTENTION), 1, protected)  # [B, n]
    _, ranking = g.ops("TopK", score, g.ints(patches), names=("ranked", "ranking"), axis=1)
    others = patches - step.keep
    parts = []
    for start, stop, number in ((0, step.keep, step.keep), (step.keep, None, others)):
        ordinals = slots.ascending(g, g.slice(ranking, 1, start, stop), number)
        places = g.op("Add", ordinals, g.index(protected))
        parts.append(slots.taken(g, tokens, places, number))
    kept, moving = parts
    going, brought = _merging(g, step, kept, moving)
    own = _own(g, step, kept)
    total = sums.total(g, brought, [2], keepdims=True)  # [B, K, 1]
    total = g.op("Add", total, own)
    x = g.op("Add", g.op("Mul", own, kept.x), g.op("MatMul", brought, moving.x))
    x = g.op("Concat", g.slice(tokens.x, 1, 0, protected), g.op("Div", x, total), axis=1)
    return replace(
        tokens, number=step.after(tokens.number, protected), x=x, scores={}, metric=None,
        owned=_owned(g, step, tokens, kept, moving, going),
        positions=_positions(g, tokens, kept, moving, going),
        came=slots.with_protected(g, tokens, kept.came),
        merges=slots.merges(g, kept, moving, going),
    )  # fmt: skip


def _positions(
    g: GraphBuilder, tokens: Slots, kept: Slots, moving: Slots, going: Name
) -> Positions | None:
    """Of the protected slots, and those that others merged into."""
    if kept.positions is None or moving.positions is None:
        return None
    received = kept.positions.merged(g, going, moving.positions)
    return slots.joined(g, [slots.part(g, tokens, 0, tokens.protected).positions, received])


def _merging(g: GraphBuilder, step: Mergence, kept: Slots, moving: Slots) -> tuple[Name, Name]:
    """[B, K, n - K] who goes where, as 0 and 1 and by what each brings."""
    unit_kept, unit_moving = (unit(g, part.x) for part in (kept, moving))
    cosine = g.op("MatMul", unit_moving, g.op("Transpose", unit_kept, perm=[0, 2, 1]))
    partner = g.op("ArgMax", cosine, axis=2, keepdims=0, name="partner")  # [B, n - K]
    going = g.op("Cast", slots.pairs(g, partner, kept.number), to=TensorProto.FLOAT)
    if step.weights == UNIFORM:
        return going, going
    if step.weights == SIMILARITY:
        best = g.op("Relu", g.reduce("ReduceMax", cosine, [2]))
    elif step.weights == IMPORTANCE:
        best = moving.score(CLASS_ATTENTION)
    elif moving.owned is None:
        return going, going
    else:
        best = moving.owned
    return going, g.op("Mul", going, g.op("Unsqueeze", best, g.ints(1)))


def _own(g: GraphBuilder, step: Mergence, kept: Slots) -> Name:
    """What a kept token itself weighs: one number, or [B, K, 1]."""
    if step.weights == IMPORTANCE:
        return g.op("Unsqueeze", kept.score(CLASS_ATTENTION), g.ints(2))
    if step.weights == SIZE and kept.owned is not None:
        return g.op("Unsqueeze", kept.owned, g.ints(2))
    return g.number(1.0)


def _owned(
    g: GraphBuilder, step: Mergence, tokens: Slots, kept: Slots, moving: Slots, going: Name
) -> Name | None:
    """[B, N] patches that each token owns, where a later step may weigh by them."""
    if step.weights != SIZE:
        return None
    if kept.owned is None or moving.owned is None:
        brought, own = g.reduce("ReduceSum", going, [2]), g.number(1.0)
    else:
        counted = g.op("Mul", going, g.op("Unsqueeze", moving.owned, g.ints(1)))
        brought, own = g.reduce("ReduceSum", counted, [2]), kept.owned
    owned = g.op("Add", brought, own)
    return g.op("Pad", owned, g.ints(0, tokens.protected, 0, 0), g.number(1.0))
