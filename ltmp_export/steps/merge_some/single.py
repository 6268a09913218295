"""Merging by a threshold and a cap in ONNX, of one image.

The names written here per block are those of `merge`; tokens are in its order where any merges,
else as they stood.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from onnx import TensorProto

from ltmp_export.graph import single
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.ragged import LOWEST
from ltmp_export.graph.single import Single
from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.steps.merge import single as merging
from ltmp_export.steps.merge.single import Pairs
from ltmp_export.steps.merge_some.step import MergeSome


def write(g: GraphBuilder, step: MergeSome, tokens: Single) -> Single:
    """Merge even rows into their most similar odd row where that is above the threshold."""
    if IMPORTANCE in tokens.needed:
        raise ValueError("of single images importance is not carried through this merge")
    tokens = single.settled(g, tokens)
    hold = partial(held, g) if step.capped(tokens.protected) else None
    pairs = merging.match(g, step.threshold, tokens, hold)
    left = merging.merge(g, tokens, pairs)
    order = _order(g, step, pairs, tokens)

    def taken(rows: Name) -> Name:
        return g.op("Gather", rows, order, axis=0)

    where, owners = left.positions, left.owners
    if owners is not None:
        count = g.op("Shape", tokens.x, start=0, end=1)
        _, now = g.ops("TopK", order, count, names=("places", "now"), axis=0, largest=0)
        owners = owners.moved(g, g.op("Gather", now, owners.somewhere(g), axis=0), None)
    return single.settled(
        g,
        replace(
            left,
            x=taken(left.x),
            size=None if left.size is None else taken(left.size),
            merged=None if left.merged is None else taken(left.merged),
            positions=None if where is None else where.taken(taken),
            owners=owners,
        ),
    )


def held(g: GraphBuilder, similarity: Name, limit: Name) -> Name:
    """[S] bool: the last of the least similar sources, where all are above, and more than half."""
    padded = g.op("Pad", similarity, g.ints(0, 1, 0, 0), g.number(LOWEST))
    best = g.reduce("ReduceMax", padded, [1])
    shape = g.op("Shape", similarity)
    sources, destinations = (g.op("Gather", shape, g.index(axis), axis=0) for axis in (0, 1))
    lowest = g.op("Gather", best, g.op("ArgMin", best, axis=0, keepdims=0), axis=0)
    full = g.op("And", g.op("Greater", lowest, limit), g.op("Greater", sources, destinations))
    last = g.op("ArgMin", best, axis=0, keepdims=1, select_last_index=1)
    rows = g.op("Range", g.index(0), sources, g.index(1))
    return g.op("And", g.op("Equal", rows, last), full)


def _order(g: GraphBuilder, step: MergeSome, pairs: Pairs, tokens: Single) -> Name:
    """[N] where in [protected ; sources ; destinations] each token is that is to stand there."""
    count = g.op("Shape", tokens.x, start=0, end=1)
    rows = g.op("Range", g.index(0), g.op("Squeeze", count, g.ints(0)), g.index(1))
    joined = pairs.joined(rows)
    names = ("standing", "standing_places")
    _, as_they_stood = g.ops("TopK", joined, count, names=names, axis=0, largest=0)
    regrouped = _ranked(g, pairs, rows) if step.ranked else rows
    going = g.op("Cast", pairs.going, to=TensorProto.FLOAT)
    some = g.op("Greater", g.reduce("ReduceSum", going, [0]), g.number(0.5))
    return g.op("Where", some, regrouped, as_they_stood)


def _ranked(g: GraphBuilder, pairs: Pairs, rows: Name) -> Name:
    """Sources in order of descending similarity, those that go behind; no row is protected."""
    padded = g.op("Pad", pairs.similarity, g.ints(0, 1, 0, 0), g.number(LOWEST))
    best = g.reduce("ReduceMax", padded, [1])
    known = g.op("Where", pairs.going, g.number(LOWEST), best)
    number = g.op("Shape", best)
    _, ranking = g.ops("TopK", known, number, names=("ranked", "ranking"), axis=0)
    return g.op("Concat", ranking, g.op("Slice", rows, number, g.ints(2**62)), axis=0)
