"""One image in ONNX: its tokens are the rows there are, and what steps take away is gone at once.

Nothing pads here and nothing tells images apart, so that a merge is a product with a small matrix
of who merges into whom (0 and 1), and selecting is a Compress: about fifty operators a block where
images of unlike numbers of rows (`graph.ragged`, `graph.packed`) take more than twice as many. In a
small model each costs what the products of some rows cost.

No token at all on one side is fine everywhere: every operator here gives its empty result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from onnx import TensorProto

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.owners import Owners
from ltmp_export.graph.positions import Positions
from ltmp_export.graph.ragged import Layout
from ltmp_export.graph.unit import unit

INT64 = int(TensorProto.INT64)


@dataclass(frozen=True)
class OneLayout(Layout):
    """Where the tokens of a graph's only image are. Heads stand in front: [H, N, D], [H, N, N]."""

    heads_axis: ClassVar[int] = 0

    def split_heads(self, qkv: Name, heads: int, width: int) -> tuple[Name, Name, Name]:
        """Rows [N, 3 * H * D] → queries, keys and values, [H, N, D] each."""
        g = self.g
        pieces = g.reshape(qkv, -1, 3 * heads, width)
        parts = g.ops("Split", pieces, g.ints(heads, heads, heads), names=("q", "k", "v"), axis=1)
        q, k, v = (g.op("Transpose", part, perm=[1, 0, 2]) for part in parts)
        return q, k, v

    def exchanged(self, keys: Name) -> Name:
        """[H, N, D] → [H, D, N]."""
        return self.g.op("Transpose", keys, perm=[0, 2, 1])

    def heads_alone(self, x: Name) -> Name:
        """[1, H, N, …] → [H, N, …], of what was computed with places that every image has."""
        return self.g.op("Squeeze", x, self.g.ints(0))

    def join_heads(self, padded: Name, heads: int, width: int) -> Name:
        """[H, N, D] → [N, H * D]."""
        rows = self.g.op("Transpose", padded, perm=[1, 0, 2])
        return self.g.reshape(rows, -1, heads * width)

    def score_bias(self, size: Name | None, largest: int | None) -> Name | None:
        """[N], the logarithms of sizes [N]; nothing while all are 1."""
        return None if size is None else self.g.op("Log", size)

    def importance(self, weights: Name, heads: int) -> Name:
        """[H, N, N] attention → [N]: mean over heads and queries."""
        return self.g.reduce("ReduceMean", weights, [0, 1], name="importances")

    def metric(self, keys: Name, heads: int, width: int) -> Name:
        """[H, N, D] keys → [N, D]: mean over heads, scaled to unit length."""
        mean = self.g.reduce("ReduceMean", keys, [0])
        return unit(self.g, mean, width, name="metric")

    def slots_of(self, rows: Name, width: int) -> Name:
        """They are what there is."""
        return self.g.op("Identity", rows, name="metric")


def layout_of(g: GraphBuilder, x: Name, most: int, protected: int) -> OneLayout:
    """Of tokens [N, C], at most so many."""
    count = g.op("Shape", x, start=0, end=1)  # [1]
    position = g.arange(most, count)
    rows = g.op("Unsqueeze", position, g.ints(0))
    per_image = g.op("Unsqueeze", count, g.ints(1))
    place = (per_image, None, count, position, rows, None, protected)
    return OneLayout(g, count, most, None, None, True, *place)


@dataclass(frozen=True)
class Single:
    """The tokens of one image while a block's steps decide about them.

    Attributes:
        x: [N, C].
        size: [N, 1] patches of each, or None while every token stands for one.
        importance: [N], or None if no later step needs it. Of a merged source it is 0.
        spares: Whether protected rows have an importance above any other, not their own.
        metric: [N, D] unit vectors, or None if no later step needs it.
        protected: P rows in front that never go.
        merged: [N] bool, who of them is merged into another, where that is still among them.
        wide: Whether rows are so wide that leaving some out of a product pays for finding them.
        needed: The scores that later steps of the block demand.
        positions: Where they lie, where attention knows of it.
        owners: Who owns the patches, or None where nobody asks.
        class_values: [N] as in `plan.scores`, or None if no step needs it.
    """

    x: Name
    size: Name | None
    importance: Name | None
    metric: Name | None
    protected: int
    spares: bool = False
    merged: Name | None = None
    wide: bool = False
    needed: frozenset[str] = frozenset()
    positions: Positions | None = None
    owners: Owners | None = None
    class_values: Name | None = None


def selected(g: GraphBuilder, tokens: Single, stay: Name) -> Single:
    """Those of whom `stay` [N] bool is true, in their order."""

    def kept(rows: Name) -> Name:
        return g.op("Compress", rows, stay, axis=0)

    where = tokens.positions
    return replace(
        tokens,
        x=kept(tokens.x),
        size=None if tokens.size is None else kept(tokens.size),
        importance=None if tokens.importance is None else kept(tokens.importance),
        metric=None if tokens.metric is None else kept(tokens.metric),
        merged=None,
        class_values=None,
        positions=None if where is None else where.taken(kept),
        owners=_after_selection(g, tokens, stay),
    )


def _after_selection(g: GraphBuilder, tokens: Single, stay: Name) -> Owners | None:
    owners = tokens.owners
    if owners is None:
        return None
    behind = g.op("CumSum", g.op("Cast", stay, to=INT64), g.index(0))
    went = g.op("Where", stay, g.op("Sub", behind, g.index(1)), g.index(-1))
    somewhere = owners.somewhere(g)
    vectors = g.op("Gather", tokens.x, somewhere, axis=0) if owners.wanted else None
    return owners.moved(g, g.op("Gather", went, somewhere, axis=0), vectors)


def settled(g: GraphBuilder, tokens: Single) -> Single:
    """Without the sources that were merged."""
    if tokens.merged is None:
        return tokens
    return selected(g, tokens, g.op("Not", tokens.merged))


def above_all(g: GraphBuilder, protected: int) -> list[Name]:
    """[P] an importance that any threshold keeps, or nothing where P is 0."""
    values = np.full(protected, np.finfo(np.float32).max, np.float32)
    return [g.stored(f"const/above_all[{protected}]", values)] if protected else []
