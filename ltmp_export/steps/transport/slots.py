"""Mixing patch tokens by shares that balance tokens and centres in ONNX, all with the same slots.

As exp(Z + a + b - c) divides each token's column by its sum in the last half of a round, the shares
are a softmax over the centres of Z + a; nothing is exponentiated that may be large.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.slots import Slots
from ltmp_export.steps.transport.step import Transport


def write(g: GraphBuilder, step: Transport, tokens: Slots) -> Slots:
    """Tokens [B, N, C] → [B, protected + M, C], see `Transport`."""
    x, protected = tokens.x, tokens.protected
    patches = g.slice(x, 1, protected) if protected else x
    unit, centres = _unit(g, patches), _unit(g, g.weight(f"{step.name}.v"))
    scaled = g.op("Div", centres, g.number(step.eps))  # [M, C]
    z = g.op("MatMul", scaled, g.op("Transpose", unit, perm=[0, 2, 1]))  # [B, M, N]
    c = g.number(-math.log(step.tokens + tokens.number - protected))
    a, with_b = None, z
    for number in range(step.rounds):
        a = g.op("Sub", c, _log_sum(g, with_b, 2))  # [B, M, 1]
        with_a = g.op("Add", z, a)
        if number < step.rounds - 1:
            with_b = g.op("Add", z, g.op("Sub", c, _log_sum(g, with_a, 1)))
    shares = g.op("Softmax", with_a, axis=1)  # [B, M, N]
    mixed = g.op("MatMul", shares, unit)
    if protected:
        mixed = g.op("Concat", g.slice(x, 1, 0, protected), mixed, axis=1)
    return replace(tokens, number=protected + step.tokens, x=mixed, size=None)


def _unit(g: GraphBuilder, x: Name) -> Name:
    """Vectors at length 1."""
    length = g.reduce("ReduceL2", x, [-1], keepdims=True)
    return g.op("Div", x, g.op("Max", length, g.number(1e-12)))


def _log_sum(g: GraphBuilder, x: Name, axis: int) -> Name:
    """The logarithm of the sum of exponentials over an axis, which stays.

    By one operator: of sums and logarithms apart, onnxruntime rounds one image's otherwise than
    those of many.
    """
    most = g.reduce("ReduceMax", x, [axis], keepdims=True)
    raised = g.op("Exp", g.op("Sub", x, most))
    return g.op("Add", most, g.reduce("ReduceLogSum", raised, [axis], keepdims=True))
