"""The mean over the patches of an image, in ONNX."""

from __future__ import annotations

from onnx import TensorProto

from ltmp_export.graph.builder import Name
from ltmp_export.graph.ragged import Layout
from ltmp_export.graph.single import OneLayout


def mean_of_patches(
    layout: Layout, x: Name, size: Name | None, prefix: int, *, whole: bool = True
) -> Name:
    """[T, C] → [B, C]: mean over the patches that an image's tokens stand for, zeros if none.

    Args:
        layout: Where the tokens of an image are.
        x: Tokens.
        size: As in `Layout.score_bias`.
        prefix: Tokens of an image before its patches, P.
        whole: Whether sizes are whole numbers, whose sum no order changes.
    """
    g = layout.g
    if isinstance(layout, OneLayout):
        return _of_one(layout, x, size, prefix)
    patches, places, count = layout.valid, layout.rows, layout.per_image
    weights = None
    if size is not None:
        weights = g.op("Gather", size, places, axis=0) if layout.fixed is None else size
    if prefix:
        patches, places = (g.slice(slots, 1, prefix) for slots in (patches, places))
        weights = None if weights is None else g.slice(weights, 1, prefix)
    if layout.living is not None:
        weights = g.op("Cast", patches, to=TensorProto.FLOAT)  # [B, N - P], one patch each
    if weights is None:
        selected = g.op("Cast", patches, to=TensorProto.FLOAT)  # [B, N - P]
        if prefix:
            count = g.op("Max", g.op("Sub", count, g.index(prefix)), g.index(1))  # [B, 1]
        divisor = g.op("Cast", count, to=TensorProto.FLOAT)
    else:
        selected = g.op("Where", patches, weights, g.number(0.0))
        if whole:
            total = g.reduce("ReduceSum", selected, [1], keepdims=True)
        else:  # a product of each image's own, since its sizes may be below 0
            ones = g.op("Unsqueeze", g.op("Cast", patches, to=TensorProto.FLOAT), g.ints(2))
            total = g.op("MatMul", g.op("Unsqueeze", selected, g.ints(1)), ones)
            total = g.op("Squeeze", total, g.ints(2))
        divisor = g.op("Max", total, g.number(1.0))
    rows = g.op("Gather", x, places, axis=0)  # [B, N - P, C]
    selected = g.op("Unsqueeze", selected, g.ints(1))
    if layout.fixed is None:  # onnxruntime rounds the product of one row by how long it is
        selected = g.op("Concat", selected, selected, axis=1)
    total = g.op("MatMul", selected, rows)  # [B, 1 or 2, C]
    return g.op("Div", g.op("Gather", total, g.index(0), axis=1), divisor)


def _of_one(layout: OneLayout, x: Name, size: Name | None, prefix: int) -> Name:
    """The same of one image [N, C].

    Rows before the patches count 0 times: a NaN in them, which prunes every patch, stays one.
    """
    g = layout.g
    patches = g.op("Greater", layout.position, g.index(prefix - 1))
    weights = g.op("Cast", patches, to=TensorProto.FLOAT)
    if size is not None:
        weights = g.op("Mul", weights, size)
    divisor = g.op("Max", g.reduce("ReduceSum", weights, [0], keepdims=True), g.number(1.0))
    return g.op("Div", g.op("MatMul", g.op("Unsqueeze", weights, g.ints(0)), x), divisor)
