"""A bias of attention scores for each difference of places, in ONNX."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from ltmp_export.backbones.positioned.geometry import Positioned
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.positions import Positions
from ltmp_export.graph.ragged import Layout

SHARED = "rel_pos_bias.relative_position_bias_table"
OF_CLASS = 3  # rows of a table behind those of patches: from the class token, to it, with itself


def write(
    g: GraphBuilder, net: Positioned, block: int, layout: Layout, places: Positions | None
) -> Name | None:
    """The bias [B or 1, H, N, N] of a block's scores, or None where it has none.

    Args:
        g: Where to.
        net: Geometry.
        block: Its index.
        layout: Where the tokens of an image are.
        places: Where they lie; None while each lies where it began.
    """
    names = (f"blocks.{block}.attn.relative_position_bias_table", SHARED)
    tables = [name for name in names if name in g.weights]
    if not tables:
        return None
    index = _index(net.grid)  # [patches + 1, patches + 1], the class token last
    if places is None:
        order = [net.patches, *range(net.patches)]
        own = index[np.ix_(order, order)][None]
        rows = g.stored(f"const/pairs[{net.grid[0]}x{net.grid[1]},own]", own)
    else:
        seats = places.rows
        if layout.fixed is None:
            seats = g.op("Gather", seats, layout.rows, axis=0)
        seats = g.op("Cast", g.op("Squeeze", seats, g.ints(2)), to=TensorProto.INT64)  # [B, N]
        query = g.op("Mul", g.op("Unsqueeze", seats, g.ints(2)), g.index(len(index)))
        pair = g.op("Add", query, g.op("Unsqueeze", seats, g.ints(1)))  # [B, N, N]
        whole = g.stored(f"const/pairs[{net.grid[0]}x{net.grid[1]}]", index.reshape(-1))
        rows = g.op("Gather", whole, pair, axis=0)
    found = [
        g.op("Transpose", g.op("Gather", g.weight(name), rows, axis=0), perm=[0, 3, 1, 2])
        for name in tables
    ]
    return layout.heads_alone(g.op("Add", *found) if found[1:] else found[0])


def _index(grid: tuple[int, int]) -> np.ndarray:
    """The row of a table for each pair of places, of query and key; the class token's is last."""
    height, width = grid
    y, x = np.divmod(np.arange(height * width), width)
    down, across = y[:, None] - y[None] + height - 1, x[:, None] - x[None] + width - 1
    patches = (2 * height - 1) * (2 * width - 1)
    index = np.full((height * width + 1,) * 2, patches, np.int64)
    index[:-1, :-1] = down * (2 * width - 1) + across
    index[:-1, -1], index[-1, -1] = patches + 1, patches + 2
    return index
