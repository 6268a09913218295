"""Merging the last of sorted patches into the first in ONNX, all images with the same slots.

Names written here per block are stable: `ranked_class_attention`, by which they are sorted, and
`partner`, of those that do not stay among those that do.
"""

from __future__ import annotations

from dataclasses import replace

from onnx import TensorProto

from ltmp_export.graph import slots
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.slots import Slots
from ltmp_export.graph.unit import unit
from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.steps.absorb.step import Absorb


def write(g: GraphBuilder, step: Absorb, tokens: Slots) -> Slots:
    """Keep the first, merge each other into one of them."""
    protected = tokens.protected
    number = step.after(tokens.number, protected)
    g.keep(g.op("Identity", tokens.score(CLASS_ATTENTION), name="ranked_class_attention"))
    kept = slots.part(g, tokens, protected, number)
    moving = slots.part(g, tokens, number, None)
    unit_kept, unit_moving = (unit(g, part.x) for part in (kept, moving))
    cosine = g.op("MatMul", unit_moving, g.op("Transpose", unit_kept, perm=[0, 2, 1]))
    partner = g.op("ArgMax", cosine, axis=2, keepdims=0, name="partner")  # [B, n - K]
    going = g.op("Cast", slots.pairs(g, partner, step.keep), to=TensorProto.FLOAT)  # [B, K, n - K]
    total = g.op("Add", g.reduce("ReduceSum", going, [2], keepdims=True), g.number(1.0))
    x = g.op("Div", g.op("Add", kept.x, g.op("MatMul", going, moving.x)), total)
    weight, own = g.reduce("ReduceMax", cosine, [2]), g.number(1.0)
    if kept.size is not None and moving.size is not None:
        weight, own = g.op("Mul", weight, moving.size), kept.size
    brought = g.op("MatMul", going, g.op("Unsqueeze", weight, g.ints(2)))  # [B, K, 1]
    size = g.op("Add", g.op("Squeeze", brought, g.ints(2)), own)  # [B, K]
    return replace(
        tokens,
        number=number,
        x=g.op("Concat", g.slice(tokens.x, 1, 0, protected), x, axis=1),
        size=g.op("Pad", size, g.ints(0, protected, 0, 0), g.number(1.0)),
        scores={},
        metric=None,
        came=slots.with_protected(g, tokens, kept.came),
        merges=slots.merges(g, kept, moving, going),
    )
