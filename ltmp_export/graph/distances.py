"""Distances of tokens from one another in ONNX."""

from __future__ import annotations

import numpy as np

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.sums import mean_of_slots


def squared(g: GraphBuilder, x: Name, tokens: int) -> Name:
    """[B, n, C] → [B, n, n] squares of distances; of a token to itself 0.

    They are those of vectors from which their mean is taken: less is lost in float32.
    """
    x = g.op("Sub", x, mean_of_slots(g, x, tokens))
    squares = g.reduce("ReduceSum", g.op("Mul", x, x), [2], keepdims=True)  # [B, n, 1]
    products = g.op("MatMul", x, g.op("Transpose", x, perm=[0, 2, 1]))
    both = g.op("Add", squares, g.op("Transpose", squares, perm=[0, 2, 1]))
    apart = g.op("Sub", both, g.op("Mul", products, g.number(2.0)))
    others = g.stored(f"others_{tokens}", 1 - np.eye(tokens, dtype=np.float32))
    return g.op("Mul", g.op("Max", apart, g.number(0.0)), others)
