"""What every graph takes and gives, whatever network it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from onnx import TensorProto

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.outputs import LOGITS, SIZES, TOKEN_MAP
from ltmp_export.precision.formats import FP16, Precision

BATCH = "batch"
KINDS = {SIZES: int(TensorProto.FLOAT), TOKEN_MAP: int(TensorProto.INT64)}
Batch: TypeAlias = int | str


def images(g: GraphBuilder, geometry: Geometry, precision: Precision, batch: Batch) -> Name:
    """The input [batch, channels, height, width]."""
    return g.input("images", _number(precision), (batch, *geometry.input_size))


def output(
    g: GraphBuilder, name: str, found: Name, precision: Precision, shape: Sequence[Batch]
) -> None:
    """An output of `plan.outputs`: of `KINDS`, or numbers as images have them."""
    if name in KINDS:
        g.output(found, name, KINDS[name], shape)
        return
    with g.scope("head"), g.half(precision.io == FP16, name):
        found = g.cast(found)
    g.output(found, name, _number(precision), shape)


def logits(
    g: GraphBuilder, found: Name, geometry: Geometry, precision: Precision, batch: Batch
) -> None:
    """The output [batch, classes]."""
    output(g, LOGITS, found, precision, (batch, geometry.classes))


def per_block(
    g: GraphBuilder, name: str, values: Sequence[Name], geometry: Geometry, batch: Batch
) -> None:
    """An output int64 [batch, depth] from a [B] of each block."""
    columns = (g.op("Unsqueeze", value, g.ints(1)) for value in values)
    joined = g.op("Concat", *columns, axis=1)
    g.output(joined, name, TensorProto.INT64, (batch, geometry.depth))


def _number(precision: Precision) -> int:
    return int(TensorProto.FLOAT16 if precision.io == FP16 else TensorProto.FLOAT)
