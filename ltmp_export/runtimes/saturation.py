"""Are a file's int8 products exact on every processor? And does this one saturate?

On x86-64 processors without VNNI instructions onnxruntime adds two neighbouring products in 16
bits. What a file's weights can lead to there follows from them alone, see
`precision.integers.heaviest_pairs`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from ltmp_export.graph.builder import OLDEST_OPSET, GraphBuilder
from ltmp_export.precision.formats import LEVELS
from ltmp_export.precision.integers import PAIR, WEIGHT_LEVELS, heaviest_pairs
from ltmp_export.precision.weights import Weights
from ltmp_export.runtimes.session import Session

_DEEP = 64  # of the probe: its product is 64 * 255 * 127


@dataclass(frozen=True)
class Products:
    """The integer products of a file.

    Attributes:
        count: How many.
        exact: Whether no activation makes one of them saturate on any processor.
        beyond: How many of them can.
        largest_pair: The heaviest pair of weights of all.
        layer: Where it is.
    """

    count: int
    exact: bool
    beyond: int
    largest_pair: int
    layer: str

    def describe(self) -> str:
        """One clause for a person."""
        if self.exact:
            return f"exact on every processor (largest pair {self.largest_pair})"
        return (
            f"{self.beyond} of {self.count} can saturate on x86-64 without VNNI (largest pair "
            f"{self.largest_pair}, in {self.layer}; up to {PAIR} is exact); export the file again "
            "with this version"
        )

    def fault(self, saturates_here: bool) -> str:
        """Why a file is not right on every processor, and what to do, or nothing."""
        if self.exact:
            return ""
        here = (
            "as on this one, so its numbers differ here"
            if saturates_here
            else "though not on this one"
        )
        return (
            f"{self.layer}: neighbouring int8 weights add up to {self.largest_pair}, expected at "
            f"most {PAIR}: its products saturate on x86-64 processors without VNNI, {here} "
            f"({self.beyond} of {self.count} products can); export the file again with this version"
        )


def products(model: onnx.ModelProto) -> Products | None:
    """The products with stored int8 weights in a model; None if it has none."""
    stored = Weights(model)
    found = []
    for name in _weights(model.graph):
        weight = stored.get(name)  # [in, out]
        if weight is not None and weight.dtype == np.int8 and weight.ndim == 2 and weight.size:
            pairs = heaviest_pairs(weight.T)
            found.append((int(pairs.max()), name.partition(".weight.int8")[0]))
    if not found:
        return None
    largest, layer = max(found, key=lambda pair: pair[0])
    beyond = sum(pair > PAIR for pair, _ in found)
    return Products(len(found), not beyond, beyond, largest, layer)


def _weights(graph: onnx.GraphProto) -> Iterator[str]:
    """What is multiplied as integers, or may be where a runtime joins the nodes around it."""
    for node in graph.node:
        if node.op_type == "MatMulInteger" and len(node.input) > 1:
            yield node.input[1]
        elif node.op_type == "DequantizeLinear":
            yield node.input[0]


@functools.cache
def saturates_here() -> bool:
    """Whether onnxruntime's products of uint8 and int8 saturate on this processor: one is tried."""
    g = GraphBuilder(OLDEST_OPSET, {})
    rows = g.input("images", TensorProto.FLOAT, ("rows", _DEEP))
    weight = g.stored("weight", np.full((_DEEP, 1), WEIGHT_LEVELS, np.int8))
    product = g.op("MatMulInteger", g.op("Cast", rows, to=TensorProto.UINT8), weight)
    g.output(g.op("Cast", product, to=TensorProto.FLOAT), "sum", TensorProto.FLOAT, ("rows", 1))
    probe = Session(g.build("probe", {}), threads=1)
    (found,) = probe.run(np.full((1, _DEEP), LEVELS, np.float32))
    return bool(found.item() != _DEEP * LEVELS * WEIGHT_LEVELS)
