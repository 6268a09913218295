"""Merging by a learned mask in ONNX, all images with the same number of slots.

Names written here per block are stable: `mask`, the weights [B, S · N · P] where patches are
restored; where they are not, `reach` and `reached`, [B, S · P]: the largest weight that each target
gets, before what is negative becomes 0, and whether it gets any; `target` [B, S · N], where each
patch goes, of a hard mask.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import TensorProto

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.slots import Slots
from ltmp_export.steps.merge_mask.step import EPS, MASK, TARGET, MergeMask


def write(g: GraphBuilder, step: MergeMask, tokens: Slots) -> Slots:
    """Patches [B, S · N, C] → [B, S · P, C] behind the protected ones; the mask is handed on."""
    protected = tokens.protected
    patches = g.slice(tokens.x, 1, protected) if protected else tokens.x
    z = _by_set(g, step, patches, step.of)  # [B · S, N, C]
    gives = raw = _raw(g, step, z, None if step.first else tokens.handed[MASK])
    used = soft = g.op("Relu", raw)
    if step.restore:
        g.keep(g.reshape(soft, -1, step.sets * step.of * step.tokens, name="mask"))
    handed = {}
    if step.hard:
        target = g.op("ArgMax", soft, axis=2, keepdims=0)  # [B · S, N]
        named = g.reshape(target, -1, step.sets * step.of, name="target")
        g.keep(named)
        columns = g.op("Equal", g.op("Unsqueeze", target, g.ints(2)), g.counting(step.tokens))
        used = g.op("Mul", soft, g.op("Cast", columns, to=TensorProto.FLOAT))
        gives = g.op("Where", columns, raw, g.number(-1.0))
        handed = {TARGET: target}
    shares = g.op("Transpose", column_shares(g, step, used), perm=[0, 2, 1])
    merged = g.op("MatMul", shares, z)  # [B · S, P, C]
    x = _together(g, step, merged, step.tokens)
    if protected:
        x = g.op("Concat", g.slice(tokens.x, 1, 0, protected), x, axis=1)
    return replace(
        tokens, number=step.after(tokens.number, protected), x=x, size=None, scores={}, metric=None,
        alive=None if step.restore else _alive(g, step, gives, protected),
        handed=handed | {MASK: used}, went=_went(g, step, tokens, used, handed.get(TARGET)),
    )  # fmt: skip


def _went(
    g: GraphBuilder, step: MergeMask, tokens: Slots, used: Name, target: Name | None
) -> Name | None:
    """[B, P protected + S · N] the slot of the target that each patch goes to, -1 if to none."""
    if tokens.came is None or target is None or step.restore:
        return None
    protected = tokens.protected
    weight = g.reduce("ReduceMax", used, [2])  # [B · S, N]
    place = g.reshape(target, -1, step.sets, step.of)
    first = g.column([protected + one * step.tokens for one in range(step.sets)])  # [S, 1]
    place = g.reshape(g.op("Add", place, first), -1, step.sets * step.of)
    goes = g.op("Greater", g.reshape(weight, -1, step.sets * step.of), g.number(0.0))
    went = g.op("Where", goes, place, g.index(-1))
    return g.op("Concat", g.slice(tokens.came, 1, 0, protected), went, axis=1)


def restore(g: GraphBuilder, step: MergeMask, given: Slots, made: Slots, left: Slots) -> Slots:
    """Z + rownorm(G) · (what the MLP made of X̃ - X̃); protected rows as the MLP left them."""
    protected, used = given.protected, made.handed[MASK]
    before, after, patches = (
        g.slice(part.x, 1, protected) if protected else part.x for part in (made, left, given)
    )
    change = _by_set(g, step, g.op("Sub", after, before), step.tokens)  # [B · S, P, C]
    total = g.reduce("ReduceSum", used, [2], keepdims=True)  # [B · S, N, 1]
    divisor = g.op("Add", total, g.number(EPS))
    if step.hard:
        place = g.op("Unsqueeze", made.handed[TARGET], g.ints(2))  # [B · S, N, 1]
        rows = g.op("GatherND", change, place, batch_dims=1)
        update = g.op("Mul", rows, g.op("Div", total, divisor))
    else:
        update = g.op("MatMul", g.op("Div", used, divisor), change)
    x = g.op("Add", patches, _together(g, step, update, step.of))
    if protected:
        x = g.op("Concat", g.slice(left.x, 1, 0, protected), x, axis=1)
    return replace(given, x=x, scores={}, metric=None, handed=made.handed)


def _raw(g: GraphBuilder, step: MergeMask, z: Name, handed: Name | None) -> Name:
    """[B · S, N, P] what relu makes the mask of, see `MergeMask`.

    The center c is in no difference from a mean, and left out. What sums over tokens or targets is
    a product: onnxruntime adds up another axis than the last in an order that depends on how many
    images there are, and exchanges a sum and a transposition.
    """
    width = g.weights[f"{step.name}.center"].shape[0]
    ones, zeros = (
        g.stored(f"const/{word}[{width}]", np.full(width, value, np.float32))
        for word, value in (("ones", 1.0), ("zeros", 0.0))
    )
    unit = g.layer_norm(z, ones, zeros, EPS)
    before = g.weight(step.start) if handed is None else handed
    order = [1, 0] if handed is None else [0, 2, 1]
    shares = g.op("Transpose", column_shares(g, step, before), perm=order)  # [(B · S,) P, N]
    means = g.op("MatMul", shares, unit)  # [B · S, P, C]
    mean = g.op("MatMul", g.row(1 / step.tokens, step.tokens), means)  # [B · S, 1, C]
    apart = g.op("Transpose", g.op("Sub", means, mean), perm=[0, 2, 1])
    likeness = g.op("MatMul", unit, apart)  # [B · S, N, P]
    rate = g.op("Mul", g.weight(f"{step.name}.step"), g.number(1 / width))
    found = g.op("Sub", before, g.op("Mul", likeness, rate))
    return g.op("Mul", found, _told_apart(g, before)) if step.hard else found


def _told_apart(g: GraphBuilder, before: Name) -> Name:
    """[(B · S,) 1, P] 0 for each empty column behind the first, from a mask [(B · S,) N, P].

    They are all alike, and a patch goes to the first of them, whatever the products round to.
    """
    most = g.reduce("ReduceMax", g.op("Abs", before), [-2], keepdims=True)  # [(B · S,) 1, P]
    empty = g.op("Cast", g.op("Equal", most, g.number(0.0)), to=TensorProto.FLOAT)
    place = g.op("Mul", empty, g.op("CumSum", empty, g.index(-1)))  # 1, 2, … of the empty ones
    return g.op("Cast", g.op("Less", place, g.number(2.0)), to=TensorProto.FLOAT)


def column_shares(g: GraphBuilder, step: MergeMask, used: Name) -> Name:
    """A mask [..., N, P], each column divided by its sum + 1e-6."""
    total = g.op("MatMul", g.row(1.0, step.of), used)  # [..., 1, P]
    return g.op("Div", used, g.op("Add", total, g.number(EPS)))


def _alive(g: GraphBuilder, step: MergeMask, gives: Name, protected: int) -> Name:
    """[B, P protected + S · P] bool, the slots that stand for a token, from [B · S, N, P]."""
    reach = g.reduce("ReduceMax", gives, [1])  # [B · S, P]
    g.keep(g.reshape(reach, -1, step.sets * step.tokens, name="reach"))
    reached = g.op("Greater", reach, g.number(0.0))
    named = g.op("Reshape", reached, g.ints(-1, step.sets * step.tokens), name="reached")
    g.keep(named)
    if protected:
        everybody = g.op("Cast", named, to=TensorProto.FLOAT)
        padded = g.op("Pad", everybody, g.ints(0, protected, 0, 0), g.number(1.0))
        return g.op("Greater", padded, g.number(0.0))
    most = g.reduce("ReduceMax", reach, [1], keepdims=True)  # of a set that reaches none: all live
    nothing = g.op("Not", g.op("Greater", most, g.number(0.0)))
    living = g.op("Or", reached, nothing)
    return g.reshape(living, -1, step.sets * step.tokens)


def _by_set(g: GraphBuilder, step: MergeMask, x: Name, number: int) -> Name:
    """[B, S · n, C] → [B · S, n, C]."""
    if step.sets == 1:
        return x
    width = g.weights[f"{step.name}.center"].shape[0]
    return g.reshape(x, -1, number, width)


def _together(g: GraphBuilder, step: MergeMask, x: Name, number: int) -> Name:
    """The inverse."""
    if step.sets == 1:
        return x
    width = g.weights[f"{step.name}.center"].shape[0]
    return g.reshape(x, -1, step.sets * number, width)


def along(g: GraphBuilder, step: MergeMask, left: Slots, x: Name, width: int) -> Name:
    """What lies where the patches lay [B, S · N, width] → [B, S · P, width], by the same mask."""
    used = left.handed[MASK]
    shares = g.op("Transpose", column_shares(g, step, used), perm=[0, 2, 1])
    merged = g.op("MatMul", shares, g.reshape(x, -1, step.of, width))  # [B · S, P, width]
    return g.reshape(merged, -1, step.sets * step.tokens, width)
