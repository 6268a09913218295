"""Vectors of unit length, in ONNX: what the tokens' similarity is the product of."""

from __future__ import annotations

import numpy as np

from ltmp_export.graph.builder import GraphBuilder, Name

TINY = 1e-30  # changes no sum of squares but of vectors that are nothing


def unit(g: GraphBuilder, x: Name, width: int | None = None, name: str | None = None) -> Name:
    """Vectors over the last axis scaled to unit length; of zeros zeros.

    TVM 0.27 and onnx2torch 1.5 have no LpNormalization. Of a known width this is the root of the
    mean square and a constant, which onnxruntime makes one operator, as that was.

    Args:
        g: Where to write.
        x: The vectors.
        width: How long they are, if known.
        name: Of the result.
    """
    if width is not None:
        constant = np.full(width, width**-0.5, np.float32)
        return g.rms_norm(x, g.stored(f"const/unit[{width}]", constant), TINY, name)
    total = g.reduce("ReduceSum", g.op("Mul", x, x), [-1], keepdims=True)
    return g.op("Div", x, g.op("Sqrt", g.op("Add", total, g.number(TINY))), name=name)
