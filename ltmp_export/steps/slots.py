"""A block's steps in ONNX where the number of rows is known before running.

Every image has the same N slots, [B, N, C], and N is a number in the graph. Where a fixed number of
tokens is merged or pruned (`MergeMost`, `PruneLeast`), every slot holds a token. Where thresholds
decide, under a budget (`Fit`), an image's living tokens stand in its first slots; the others are
seen by nobody.

There is no operator here whose result has a shape that depends on data, and no scatter: ranks come
from `TopK` with a constant k (of equal scores the lower slot first), rows from `GatherND`, and a
merge is the product of a [D, S] matrix, who goes where, with the sources. Equal pieces go together
in an order that is fixed.

Names written here per block are stable: `similarity`, `partner` and `merged` or `ranking` (sources
by best similarity); `merged_importance`; `kept`, `order` (slots by importance) or `fitted` (slots
that stay); `count`, `dropped`, `merge_threshold`, `prune_threshold`. Neither the class token nor a
distillation token takes part in matching: source i is slot 2 i + 2, destination j slot 2 j + 1, or
2 j + 3 behind a distillation token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnx import TensorProto

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.ragged import LOWEST
from ltmp_export.plan.plan import Merge, MergeMost, Prune, PruneLeast, Step


@dataclass(frozen=True)
class Slots:
    """Tokens between attention and MLP of a block.

    Attributes:
        number: N.
        x: [B, N, C].
        size: [B, N] patches of each token, or None while every token stands for one.
        importance: [B, N], or None if no step needs it.
        metric: [B, N, D] unit vectors, or None if no step needs it.
        alive: [B, N] bool, the slots that hold a token; None where all do.
        packed: Whether the living stand in front.
        count: [B] living tokens after a budget, or None.
        dropped: [B] tokens that a budget had no room for, or None.
    """

    number: int
    x: Name
    size: Name | None
    importance: Name | None
    metric: Name | None
    alive: Name | None
    packed: bool = True
    count: Name | None = None
    dropped: Name | None = None


def reduce(g: GraphBuilder, steps: Sequence[Step], tokens: Slots) -> Slots:
    """Take a block's steps one after the other."""
    for step in steps:
        if isinstance(step, MergeMost):
            tokens = _merge_most(g, step, tokens)
        elif isinstance(step, PruneLeast):
            tokens = _prune_least(g, step.count, tokens)
        elif isinstance(step, Merge):
            tokens = _merge(g, step.threshold, tokens if tokens.packed else _packed(g, tokens))
        elif isinstance(step, Prune):
            tokens = _prune(g, step.threshold, tokens)
        else:
            tokens = _fit(g, step.keep, tokens)
    return tokens


# A fixed number


def _merge_most(g: GraphBuilder, step: MergeMost, tokens: Slots) -> Slots:
    """Merge the sources of the highest best similarity."""
    sources, first = (tokens.number - 1) // 2, 2 * step.prefix - 1
    similarity = _similarity(g, tokens, first)
    best = g.reduce("ReduceMax", similarity, [2], name="similarity")
    partner = g.op("ArgMax", similarity, axis=2, keepdims=0, name="partner")
    _, ranking = g.ops("TopK", best, g.ints(sources), names=("ranked", "ranking"), axis=1)
    merging = g.slice(ranking, 1, 0, step.count)  # [B, K]
    to = g.op("GatherElements", partner, merging, axis=1)  # [B, K]
    rows = _source_slots(g, merging)
    parts = [_part(g, tokens, place, place + 1) for place in range(step.prefix)]
    if sources > step.count:
        parts.append(_unmerged(g, step, tokens, g.slice(ranking, 1, step.count), sources))
    destinations = _every_other(g, tokens, first)
    going = _equal(g, to, destinations.number)
    parts.append(_received(g, destinations, _taken(g, tokens, rows, step.count), going))
    return _joined(g, parts)


def _unmerged(g: GraphBuilder, step: MergeMost, tokens: Slots, others: Name, sources: int) -> Slots:
    """The sources that do not merge, by rank, or in their own order."""
    number = sources - step.count
    if not step.ranked:
        others = _ascending(g, others, number)
    return _taken(g, tokens, _source_slots(g, others), number)


def _prune_least(g: GraphBuilder, count: int, tokens: Slots) -> Slots:
    """Sort by importance, the class token first, and drop the last."""
    if tokens.importance is None:
        raise ValueError("pruning needs importance")
    number = tokens.number - count
    others = g.slice(tokens.importance, 1, 1)
    names = ("sorted", "sorted_places")
    _, places = g.ops("TopK", others, g.ints(number - 1), names=names, axis=1)
    after = g.op("Add", places, g.index(1))
    order = g.op("Pad", after, g.ints(0, 1, 0, 0), name="order")  # 0, the class token, in front
    return _taken(g, tokens, order, number)


# Thresholds under a budget


def _merge(g: GraphBuilder, threshold: float, tokens: Slots) -> Slots:
    """Merge living sources into their most similar living destination if above the threshold."""
    sources, destinations = (_every_other(g, tokens, first) for first in (2, 1))
    similarity = _similarity(g, tokens, 1)
    living = g.op("Unsqueeze", _alive(destinations), g.ints(1))  # [B, 1, D]
    similarity = g.op("Where", living, similarity, g.number(LOWEST))
    best = g.reduce("ReduceMax", similarity, [2], name="similarity")
    partner = g.op("ArgMax", similarity, axis=2, keepdims=0, name="partner")
    above = g.op("Greater", best, g.number(threshold, "merge_threshold"))
    merged = g.op("And", above, _alive(sources), name="merged")  # [B, S]
    places = _equal(g, partner, destinations.number)
    going = g.op("And", places, g.op("Unsqueeze", merged, g.ints(1)))  # [B, D, S]
    stay = g.op("And", _alive(sources), g.op("Not", merged))
    received = _received(g, destinations, sources, going)
    parts = [_part(g, tokens, 0, 1), replace(sources, alive=stay), received]
    return replace(_joined(g, parts), packed=False)


def _prune(g: GraphBuilder, threshold: float, tokens: Slots) -> Slots:
    """Drop slots whose importance is not above the threshold; slot 0, the class token, stays."""
    if tokens.importance is None:
        raise ValueError("pruning needs importance")
    above = g.op("Greater", tokens.importance, g.number(threshold, "prune_threshold"))
    important = g.op("Or", above, _is_class(g, tokens.number))
    kept = g.op("And", important, _alive(tokens), name="kept")
    return replace(tokens, alive=kept, packed=False)


def _fit(g: GraphBuilder, keep: int, tokens: Slots) -> Slots:
    """The living in front, in their order; where they are more than `keep`, the most important."""
    if tokens.importance is None:
        raise ValueError("a budget needs importance")
    living = g.op("Cast", _alive(tokens), to=TensorProto.INT64)
    found = g.reduce("ReduceSum", living, [1])  # [B]
    count = g.op("Min", found, g.ints(keep), name="count")
    dropped = g.op("Sub", found, count, name="dropped")
    rank = g.op("Where", _alive(tokens), tokens.importance, g.number(-1.0))
    rank = g.op("Where", _is_class(g, tokens.number), g.number(-LOWEST), rank)
    names = ("most_important", "most_important_places")
    _, best = g.ops("TopK", rank, g.ints(keep), names=names, axis=1)
    chosen = g.op("GatherElements", _places(g, tokens), best, axis=1)  # [B, keep]
    fitted = g.op("Mod", _ascending(g, chosen, keep), g.index(tokens.number), name="fitted")
    return replace(_taken(g, tokens, fitted, keep), count=count, dropped=dropped)


def _packed(g: GraphBuilder, tokens: Slots) -> Slots:
    """The living in front, in their order."""
    number = tokens.number
    places = _ascending(g, _places(g, tokens), number)
    return _taken(g, tokens, g.op("Mod", places, g.index(number)), number)


def _places(g: GraphBuilder, tokens: Slots) -> Name:
    """[B, N] the number of each slot, N more if nothing lives there: by these, the living first."""
    own = g.counting(tokens.number)
    return g.op("Where", _alive(tokens), own, g.op("Add", own, g.index(tokens.number)))


def _ascending(g: GraphBuilder, values: Name, number: int) -> Name:
    """[B, n] integers, sorted."""
    names = ("ascending", "ascending_places")
    return g.ops("TopK", values, g.ints(number), names=names, axis=1, largest=0)[0]


def _is_class(g: GraphBuilder, number: int) -> Name:
    """[N] bool, true for slot 0."""
    return g.op("Equal", g.counting(number), g.index(0))


def _alive(tokens: Slots) -> Name:
    if tokens.alive is None:
        raise ValueError("a budget needs to know who lives")
    return tokens.alive


# Both


def _similarity(g: GraphBuilder, tokens: Slots, first: int) -> Name:
    """[B, S, D] inner products of the sources' and destinations' metric."""
    if tokens.metric is None:
        raise ValueError("matching needs the metric")
    sources, destinations = (g.slice(tokens.metric, 1, start, step=2) for start in (2, first))
    return g.op("MatMul", sources, g.op("Transpose", destinations, perm=[0, 2, 1]))


def _equal(g: GraphBuilder, to: Name, destinations: int) -> Name:
    """[B, S] ordinals of destinations → [B, D, S] bool, who goes where."""
    column = g.op("Unsqueeze", g.counting(destinations), g.ints(1))  # [D, 1]
    return g.op("Equal", g.op("Unsqueeze", to, g.ints(1)), column)


def _source_slots(g: GraphBuilder, ordinals: Name) -> Name:
    """The slots of sources."""
    return g.op("Add", g.op("Mul", ordinals, g.index(2)), g.index(2))


def _received(g: GraphBuilder, destinations: Slots, sources: Slots, going: Name) -> Slots:
    """Destinations [B, D] with what sources [B, S] bring: means of vectors, sums of sizes.

    `going` [B, D, S] bool says who goes where.
    """
    weight = g.op("Cast", going, to=TensorProto.FLOAT)
    importance = None
    if destinations.importance is not None and sources.importance is not None:
        brought = g.op("Mul", weight, g.op("Unsqueeze", sources.importance, g.ints(1)))
        largest = g.reduce("ReduceMax", brought, [2])
        importance = g.op("Max", destinations.importance, largest)
    own = g.number(1.0)
    if destinations.size is not None and sources.size is not None:
        weight = g.op("Mul", weight, g.op("Unsqueeze", sources.size, g.ints(1)))
        own = g.op("Unsqueeze", destinations.size, g.ints(2))  # [B, D, 1]
    total = g.op("Add", g.reduce("ReduceSum", weight, [2], keepdims=True), own)  # [B, D, 1]
    brought = g.op("MatMul", g.op("Div", weight, total), sources.x)  # [B, D, C]
    kept = g.op("Mul", destinations.x, g.op("Div", own, total))
    return replace(
        destinations,
        x=g.op("Add", kept, brought),
        size=g.op("Squeeze", total, g.ints(2)),
        importance=importance,
        metric=None,
    )


def _part(g: GraphBuilder, tokens: Slots, start: int, stop: int | None, step: int = 1) -> Slots:
    """The slots start, start + step, … before stop."""

    def some(values: Name | None) -> Name | None:
        return None if values is None else g.slice(values, 1, start, stop, step)

    number = len(range(tokens.number)[start:stop:step])
    x = g.slice(tokens.x, 1, start, stop, step)
    size, importance, alive = map(some, (tokens.size, tokens.importance, tokens.alive))
    return Slots(number, x, size, importance, None, alive)


def _every_other(g: GraphBuilder, tokens: Slots, first: int) -> Slots:
    return _part(g, tokens, first, None, 2)


def _taken(g: GraphBuilder, tokens: Slots, slots: Name, number: int) -> Slots:
    """Those in slots [B, n], in that order."""
    index = g.op("Unsqueeze", slots, g.ints(2))  # [B, n, 1]

    def scalars(values: Name | None) -> Name | None:
        return None if values is None else g.op("GatherElements", values, slots, axis=1)

    def vectors(values: Name) -> Name:
        return g.op("GatherND", values, index, batch_dims=1)

    metric = None if tokens.metric is None else vectors(tokens.metric)
    size, importance, alive = map(scalars, (tokens.size, tokens.importance, tokens.alive))
    return Slots(number, vectors(tokens.x), size, importance, metric, alive)


def _joined(g: GraphBuilder, parts: Sequence[Slots]) -> Slots:
    """One after the other; where the first have no sizes yet, theirs are 1."""

    def joined(values: Sequence[Name | None], name: str | None = None) -> Name | None:
        known = [value for value in values if value is not None]
        return g.op("Concat", *known, axis=1, name=name) if len(known) == len(parts) else None

    sizes = [part.size for part in parts if part.size is not None]
    size = g.op("Concat", *sizes, axis=1) if sizes[1:] else sizes[0]
    if before := sum(part.number for part in parts if part.size is None):
        size = g.op("Pad", size, g.ints(0, before, 0, 0), g.number(1.0))
    return Slots(
        number=sum(part.number for part in parts),
        x=g.op("Concat", *(part.x for part in parts), axis=1),
        size=size,
        importance=joined([part.importance for part in parts], "merged_importance"),
        metric=None,
        alive=joined([part.alive for part in parts]),
    )
