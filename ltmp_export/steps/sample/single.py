"""Sampling tokens by the class token's attention in ONNX, of one image.

Names written here per block are stable: `cdfs`, running shares of what tokens are sampled by;
`stays`.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from ltmp_export.graph import single
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.single import Single
from ltmp_export.steps.sample import points
from ltmp_export.steps.sample.step import Sample


def write(g: GraphBuilder, step: Sample, tokens: Single) -> Single:
    """Drop rows that no point takes; protected ones stay."""
    if tokens.class_values is None:
        raise ValueError("sampling needs values")
    protected = tokens.protected
    nothing = g.stored(f"const/none[{protected}]", np.zeros(protected, np.float32))
    own = g.slice(tokens.class_values, 0, protected)  # [n]
    running = points.shares(g, step, g.op("Concat", nothing, own, axis=0), 0, "cdfs")
    patches = g.slice(running, 0, protected)
    number = g.op("Squeeze", g.op("Shape", patches))
    places = g.op("Range", g.index(0), number, g.index(1))
    hit = points.hit(g, step, patches, places, 0)
    front = g.op("Cast", g.ints(*[1] * protected), to=TensorProto.BOOL)
    return single.selected(g, tokens, g.op("Concat", front, hit, axis=0, name="stays"))
