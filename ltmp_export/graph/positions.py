"""Where the tokens lie, for attention that knows of it; in ONNX.

Of a token that several have become it is either the sums over its patches, which are whole and so
the same in any order, or the place of the one that the others merged into.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from onnx import TensorProto

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.packed import Reduced
from ltmp_export.plan.geometry import Size

SUMMED = 3  # columns: of a token's patches the rows, the columns, and how many there are


@dataclass(frozen=True)
class Positions:
    """Where tokens lie.

    Attributes:
        rows: [T, 3] or [T, 1] float32, of fixed slots [B, N, 3] or [B, N, 1]: summed, see `SUMMED`,
            all 0 for a token that is no patch; else the patch, counted row by row, or how many
            patches there are for a token that is none.
        summed: Which.
    """

    rows: Name
    summed: bool

    def taken(self, pick: Callable[[Name], Name]) -> Positions:
        """Of some of the tokens, as `pick` takes them from rows of any channels."""
        return replace(self, rows=pick(self.rows))

    def merged(self, g: GraphBuilder, going: Name, others: Positions) -> Positions:
        """Of destinations [B, D] into which others [B, S] merge; `going` [B, D, S] as 0 and 1."""
        if not self.summed:
            return self
        return replace(self, rows=g.op("Add", self.rows, g.op("MatMul", going, others.rows)))


def initial(g: GraphBuilder, grid: Size, protected: int, summed: bool) -> Positions:
    """Where the tokens of every image lie before the first block, [N, 3] or [N, 1]."""
    height, width = grid
    if summed:
        y, x = np.divmod(np.arange(height * width), width)
        patches = np.stack([y, x, np.ones_like(x)], -1)
        front = np.zeros((protected, SUMMED))
    else:
        patches = np.arange(height * width)[:, None]
        front = np.full((protected, 1), height * width)
    rows = np.concatenate([front, patches]).astype(np.float32)
    name = f"const/positions[{height}x{width},{protected},{'summed' if summed else 'one'}]"
    return Positions(g.stored(name, rows), summed)


def of_images(
    g: GraphBuilder, places: Positions, tokens: int, images: Name | None, static: bool
) -> Positions:
    """`initial` ones of all images, as the tokens of their graph are: packed, or in slots."""
    width = SUMMED if places.summed else 1
    rows = g.op("Unsqueeze", places.rows, g.ints(0))
    if images is not None:
        batch = g.op("Shape", images, start=0, end=1)
        shape = g.op("Concat", batch, g.ints(tokens, width), axis=0)
        rows = g.op("Expand", rows, shape)
    return replace(places, rows=rows if static else g.reshape(rows, -1, width))


def reduced(g: GraphBuilder, decided: Reduced, places: Positions) -> Positions:
    """Of the packed rows that a block's steps leave, see `packed.reduce_rows`."""
    rows, merges = places.rows, decided.merges
    if merges is not None and places.summed:
        going = g.op("Greater", merges.mixing, g.number(0.0))
        going = g.op("Cast", going, to=TensorProto.FLOAT)  # [B, K, K]
        own, coming = (g.op("Gather", rows, w, axis=0) for w in (merges.target, merges.source))
        new = g.op("Add", own, g.op("MatMul", going, coming))
        rows = merges.placed(g, rows, g.op("Flatten", new, axis=2))
    return replace(places, rows=g.op("Gather", rows, decided.rows, axis=0))
