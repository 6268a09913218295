"""Merging by a threshold and a cap in ONNX, each image with rows of its own number.

The names written here per block are those of `merge`; slots are in its order where an image merges
any token, else as they stood.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from onnx import TensorProto

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.packed import Candidates
from ltmp_export.graph.ragged import LOWEST
from ltmp_export.steps.merge import packed
from ltmp_export.steps.merge_some.step import MergeSome

_INT64 = int(TensorProto.INT64)
_END = 2**62


def write(g: GraphBuilder, step: MergeSome, tokens: Candidates) -> Candidates:
    """Merge even slots into their most similar odd slot where that is above the threshold."""
    tokens = packed.settled(g, tokens)
    layout = tokens.layout
    capped = step.capped(layout.protected)
    hold = partial(held, g, count=layout.per_image, protected=layout.protected) if capped else None
    partner, best, merged = packed.match(g, step.threshold, tokens, hold)
    left = packed.merge(g, tokens, partner, merged)
    if step.ranked:
        left = _ranked(g, left, best)
    if left.merges is None:
        raise ValueError("a merge that says nothing of what merged")
    merges = some(g, g.slice(left.merges.present, 1, 0, 1))
    none = g.op("And", g.op("Not", merges), tokens.alive)
    return replace(
        left,
        rows=g.op("Where", merges, left.rows, tokens.rows),
        alive=g.op("Or", g.op("And", merges, left.alive), none),
    )


def some(g: GraphBuilder, present: Name) -> Name:
    """[B, 1] bool: whether an image merges any token, from 1 or 0 for the first that it merges."""
    return g.op("Greater", present, g.number(0.5))


def held(
    g: GraphBuilder, best: Name, above: Name, there: Name, *, count: Name, protected: int
) -> Name:
    """[B, S] bool: the last of the least similar sources, where more are above than may merge.

    Args:
        g: Where to write.
        best: [B, S] similarities.
        above: Those above the threshold.
        there: Those that there are.
        count: [B, 1] tokens.
        protected: P.
    """
    behind = g.op("Sub", count, g.index(protected)) if protected else count
    most = g.op("Div", behind, g.index(2))
    number = g.reduce("ReduceSum", g.op("Cast", above, to=_INT64), [1], keepdims=True)
    full = g.op("Greater", number, most)  # [B, 1]
    known = g.op("Where", there, best, g.number(-LOWEST))
    last = g.op("ArgMin", known, axis=1, keepdims=1, select_last_index=1)
    place = g.op("CumSum", g.op("Cast", there, to=_INT64), g.index(1))  # 1, 2, … of those there
    its = g.op("Equal", place, g.op("Add", last, g.index(1)))
    return g.op("And", g.op("And", its, there), full)


def _ranked(g: GraphBuilder, left: Candidates, best: Name) -> Candidates:
    """With the unmerged sources in order of descending similarity, in front of the others.

    There is no protected row.
    """
    number = g.op("Shape", best, start=1, end=2)  # [1] S
    both = (left.rows, left.alive)
    sources = [g.op("Slice", x, g.ints(0), number, g.ints(1)) for x in both]
    destinations = [g.op("Slice", x, number, g.ints(_END), g.ints(1)) for x in both]
    known = g.op("Where", sources[1], best, g.number(LOWEST))
    _, ranking = g.ops("TopK", known, number, names=("ranked", "ranking"), axis=1)
    rows, alive = (
        g.op("Concat", g.op("GatherElements", own, ranking, axis=1), others, axis=1)
        for own, others in zip(sources, destinations, strict=True)
    )
    return replace(left, rows=rows, alive=alive)
