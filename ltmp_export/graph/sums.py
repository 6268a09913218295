"""Sums in ONNX that are an image's own, whatever its batch.

onnxruntime takes ReduceSum and ReduceMean in an order that depends on which axes are 1 and where a
row begins, so those of an image may differ in the last bit by its batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ltmp_export.graph.builder import GraphBuilder, Name


def total(
    g: GraphBuilder,
    x: Name,
    axes: Sequence[int],
    *,
    keepdims: bool = False,
    name: str | None = None,
) -> Name:
    """The sum of what is nowhere negative, by ReduceL1, which has one order."""
    return g.reduce("ReduceL1", x, axes, keepdims, name)


def mean_of_slots(g: GraphBuilder, x: Name, slots: int) -> Name:
    """[B, n, C] → [B, 1, C]: the mean over all slots, as a product of each image."""
    share = np.full((1, slots), 1.0 / slots, np.float32)
    return g.op("MatMul", g.stored(f"const/share[{slots}]", share), x)


def logarithms(g: GraphBuilder, x: Name) -> Name:
    """Of each number, by ReduceLogSum; Log rounds a number by where it stands in its tensor."""
    return g.reduce("ReduceLogSum", g.op("Unsqueeze", x, g.ints(-1)), [-1])
