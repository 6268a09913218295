"""Tokens of a ragged batch while a block's steps decide about them, and the rows that are left.

A merge changes few rows:

    x[d] ← x[d] + Σ_k (s_k / S_d) (x[k] − x[d])      over the sources k that merge into d

with sizes s and S_d = s_d + Σ_k s_k, which is the weighted mean of METHOD §1. It is computed for
the K merging sources of an image, as a [K, K] product ("who shares my destination") with the [K, C]
differences. Each puts its result in the place of its destination's row, and one Gather takes what
is left: nothing is added up in an order that is open. Sources of one destination all compute its
new row, the same one; which of them writes it makes no difference.

What steps decide stands in names of their own (`record`); `count` and `size` are written here.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.ragged import Layout


@dataclass(frozen=True)
class Candidates:
    """Tokens while steps decide about them, in slots.

    Attributes:
        layout: Their slots.
        rows: [B, N] row of each slot's token.
        alive: [B, N] bool, the slots that hold a token that stays so far.
        total: [1] T.
        size: [T] patches of each row, or None while every token stands for one patch.
        importance: [B, N], or None if no later step needs it.
        metric: [B, N, D] unit vectors, or None if no later step needs it.
        metric_width: D.
        merges: What was merged, or None.
        gaps: Whether a step has left slots in between that are no longer alive.
        needed: The scores that later steps of the block demand.
        class_values: [B, N] as in `plan.scores`, or None if no step needs it.
    """

    layout: Layout
    rows: Name
    alive: Name
    total: Name
    size: Name | None
    importance: Name | None
    metric: Name | None
    metric_width: int
    merges: Merges | None = None
    gaps: bool = False
    needed: frozenset[str] = frozenset()
    class_values: Name | None = None


@dataclass(frozen=True)
class Merges:
    """The K merging sources of each image; where it has fewer, others repeat what is there.

    Attributes:
        source: [B, K] row of each.
        target: [B, K] row of its destination.
        mixing: [B, K, K] weight of source j in the destination of source i, 0 if it has another.
        present: [B, K] 1 for those that merge, 0 for those that fill up.
    """

    source: Name
    target: Name
    mixing: Name
    present: Name

    def placed(self, g: GraphBuilder, values: Name, new: Name) -> Name:
        """Values [T, …] with the new ones [B · K, …] in the places of destinations.

        Row by row: of places [B, K, 1] MNN writes zeros over other rows without a word.
        """
        return g.op("ScatterND", values, g.reshape(self.target, -1, 1), new)


@dataclass(frozen=True)
class Reduced:
    """What a block's steps have decided, to be applied to rows.

    Attributes:
        layout: Of the tokens that are left.
        rows: [T'] row of each.
        size: [T'] patches of each, or None while every token stands for one patch.
        merges: What was merged, or None.
    """

    layout: Layout
    rows: Name
    size: Name | None
    merges: Merges | None


def finish(g: GraphBuilder, tokens: Candidates) -> Reduced:
    """What all steps of a block have decided."""
    rows, layout = pack(g, tokens)
    size = None if tokens.size is None else g.op("Gather", tokens.size, rows, axis=0, name="size")
    return Reduced(layout, rows, size, tokens.merges)


def reduce_rows(g: GraphBuilder, reduced: Reduced, x: Name) -> Name:
    """Rows [T, C] → the rows [T', C] that are left, merged."""
    return g.op("Gather", merged_rows(g, reduced, x), reduced.rows, axis=0)


def merged_rows(g: GraphBuilder, reduced: Reduced, x: Name) -> Name:
    """Rows [T, C], of destinations what they become."""
    merges = reduced.merges
    if merges is None:
        return x
    target = g.op("Gather", x, merges.target, axis=0)  # [B, K, C]
    difference = g.op("Sub", g.op("Gather", x, merges.source, axis=0), target)
    new = g.op("Add", target, g.op("MatMul", merges.mixing, difference))
    return merges.placed(g, x, g.op("Flatten", new, axis=2))


def pack(g: GraphBuilder, tokens: Candidates, name: str = "count") -> tuple[Name, Layout]:
    """[T'] rows of the living slots, and the layout they are in."""
    alive = g.reshape(tokens.alive, -1)
    rows = g.op("Compress", g.reshape(tokens.rows, -1), alive, axis=0)
    counts = g.op("Cast", tokens.alive, to=TensorProto.INT64)
    return rows, tokens.layout.for_counts(g.reduce("ReduceSum", counts, [1], name=name))
