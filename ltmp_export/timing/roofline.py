"""How fast the matrix products of a model can be: its linear layers alone, on the same rows.

A model can hardly be faster than its linear layers alone in the same runtime: what is between the
two is attention and the operators around. Shapes are those of the images timed, with the tokens
each of them kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.plan import Plan

OPSET = 17


def rows(geometry: Geometry, plan: Plan, counts: Sequence[int]) -> list[int]:
    """Rows that one image gives to each of the `linears`.

    Args:
        geometry: Of the model.
        plan: What else says how many rows there are.
        counts: [depth] tokens after each block.
    """
    return geometry.layer_rows(geometry.rows(plan, plan.executed(counts)))


def batch_rows(
    geometry: Geometry, plan: Plan, counts: NDArray[np.int64], batches: Sequence[NDArray[np.int64]]
) -> list[list[int]]:
    """[batches][layers] rows of each layer in each batch.

    Args:
        geometry: Of the model.
        plan: As in `rows`.
        counts: [images][depth] tokens after each block.
        batches: Indices of the images in each batch.
    """
    per_image = np.array([rows(geometry, plan, row) for row in counts])
    return [[int(n) for n in per_image[index].sum(axis=0)] for index in batches]


def gmacs(geometry: Geometry, plan: Plan, counts: NDArray[np.int64]) -> tuple[float, ...]:
    """[images] 10^9 multiply-accumulates of the linear layers."""
    work = np.array([layer.ins * layer.outs for layer in geometry.linears()], float)
    per_image = np.array([rows(geometry, plan, row) for row in counts], float)
    return tuple(float(one) / 1e9 for one in per_image @ work)


def model(geometry: Geometry) -> ModelProto:
    """Each linear layer on an input [T, ins] of its own.

    Only the first row of each product leaves the graph, so that no time goes to copies.
    """
    rng = np.random.default_rng(0)
    found = list(geometry.linears())
    weights = {x.path: rng.standard_normal((x.outs, x.ins), np.float32) for x in found}
    g = GraphBuilder(OPSET, weights)
    for layer in found:
        x = g.input(f"{layer.path}/x", TensorProto.FLOAT, (f"{layer.path}/rows", layer.ins))
        product = g.op("Gemm", x, g.weight(layer.path), transB=1)
        first = g.op("Gather", product, g.index(0), axis=0)
        g.output(first, f"{layer.path}/y", TensorProto.FLOAT, (layer.outs,))
    return g.build("linear_layers", {})
