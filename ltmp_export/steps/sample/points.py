"""Who is nearest to some sample point, in ONNX."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.steps.sample.step import Sample


def shares(g: GraphBuilder, step: Sample, scores: Name, axis: int, name: str) -> Name:
    """Scores [..., N], 0 of whom none falls on → running shares of their sum.

    The sum is the last of the running ones, and none above it: in whatever order it is added up
    elsewhere, slots that are empty make no difference.
    """
    running = g.op("CumSum", scores, g.index(axis))
    total = g.reduce("ReduceMax", running, [axis], keepdims=True)
    return g.op("Div", running, g.op("Add", total, g.number(step.floor)), name=name)


def hit(g: GraphBuilder, step: Sample, running: Name, places: Name, axis: int) -> Name:
    """Running shares [..., n] and places [n] 0, 1, 2, … → [..., n] bool."""
    column = np.array(step.points, np.float32)[:, None]
    points = g.stored(f"const/sample_points[{step.samples}]", column)
    apart = g.op("Abs", g.op("Sub", g.op("Unsqueeze", running, g.ints(axis)), points))
    nearest = g.op("ArgMin", apart, axis=axis + 1, keepdims=1)  # [..., K, 1]
    takes = g.op("Cast", g.op("Equal", nearest, places), to=TensorProto.FLOAT)  # [..., K, n]
    return g.op("Greater", g.reduce("ReduceMax", takes, [axis]), g.number(0.5))


def of_slots(g: GraphBuilder, step: Sample, values: Name, patches: Name, places: Name) -> Name:
    """[B, N] bool, the slots of patch tokens that some point takes.

    Args:
        g: Where to write.
        step: The step.
        values: [B, N] what they are sampled by.
        patches: [B, N] bool, the slots that hold a patch token.
        places: [N] 0, 1, 2, …
    """
    own = g.op("Where", patches, values, g.number(0.0))
    running = shares(g, step, own, 1, "cdf")
    there = g.op("Where", patches, running, g.number(4.0))  # farther from any point than all
    return hit(g, step, there, places, 1)
