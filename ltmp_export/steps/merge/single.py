"""Merging by a threshold in ONNX, of one image.

Who merges into whom is a matrix [S, 1 + D] with a single 1 in each row: the sources' similarities
behind a column that holds the threshold, of each row the first of the largest. So a source takes
the first of its most similar destinations if that is above the threshold, and column 0 if not.

Names written here per block are stable: `similarities`, `choice`, `carried`, `merge_threshold`.
What a check reads is told from these, see `graph.told`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from onnx import TensorProto

from ltmp_export.graph import single
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.ragged import LOWEST
from ltmp_export.graph.single import Single
from ltmp_export.plan import pairing
from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.steps.merge.step import Merge

BOOL = int(TensorProto.BOOL)


@dataclass(frozen=True)
class Pairs:
    """Who merges into whom.

    Attributes:
        g: Where to write.
        protected: P.
        places: [S, D] 1 where the source merges into that destination, else 0.
        stays: [S] 1 for a source that merges into none, else 0.
        going: [S] bool, the others.
        partner: [S] the destination of each of these.
        similarity: [S, D] what it goes by.
    """

    g: GraphBuilder
    protected: int
    places: Name
    stays: Name
    going: Name
    partner: Name
    similarity: Name

    def parts(self, rows: Name) -> tuple[tuple[Name, ...], Name, Name]:
        """[N, …] → the protected ones, if there are any, the sources, the destinations."""
        g, protected = self.g, self.protected
        return (
            (g.slice(rows, 0, 0, protected),) if protected else (),
            g.slice(rows, 0, pairing.first_source(protected), step=2),
            g.slice(rows, 0, pairing.first_destination(protected), step=2),
        )

    def joined(self, rows: Name, become: Callable[[Name, Name], Name] | None = None) -> Name:
        """[N, …] in the new order; `become` makes of sources and destinations the new ones."""
        front, sources, destinations = self.parts(rows)
        made = become(sources, destinations) if become else destinations
        return self.g.op("Concat", *front, sources, made, axis=0)


def write(g: GraphBuilder, step: Merge, tokens: Single) -> Single:
    """Merge even rows into their most similar odd row where that is above the threshold."""
    tokens = single.settled(g, tokens)
    made = merge(g, tokens, match(g, step.threshold, tokens))
    return made if IMPORTANCE in tokens.needed else single.settled(g, made)


def merge(g: GraphBuilder, tokens: Single, pairs: Pairs) -> Single:
    """Merge sources into destinations, [protected ; sources ; destinations] then.

    Sources that went are still among them, and said.
    """
    merged = _merged(pairs, pairs.parts(tokens.x)[2])
    x, size = _mixed(pairs, tokens)
    where, owners = tokens.positions, tokens.owners
    if where is not None:
        become = _summed(pairs) if where.summed else None
        where = where.taken(lambda rows: pairs.joined(rows, become))
    if owners is not None:
        went = _went(pairs, merged, tokens.x)
        place = g.op("Gather", went, owners.somewhere(g), axis=0)
        owners = owners.moved(g, place, None)
    carries = IMPORTANCE in tokens.needed
    return replace(
        tokens, x=x, size=size, importance=_carried(pairs, tokens) if carries else None,
        spares=carries, metric=None, merged=merged, positions=where, owners=owners,
    )  # fmt: skip


def match(
    g: GraphBuilder,
    threshold: float,
    tokens: Single,
    held: Callable[[Name, Name], Name] | None = None,
) -> Pairs:
    """Match sources with destinations.

    Args:
        g: Where to write.
        threshold: What similarities have to be above.
        tokens: Without sources that went.
        held: Of similarities [S, D] and the threshold, who is held back, [S] bool.
    """
    if tokens.metric is None:
        raise ValueError("matching needs the metric")
    protected = tokens.protected
    starts = (pairing.first_source(protected), pairing.first_destination(protected))
    sources, destinations = (g.slice(tokens.metric, 0, start, step=2) for start in starts)
    similarity = g.op("Gemm", sources, destinations, transB=1, name="similarities")
    limit = g.number(threshold, "merge_threshold")
    free = similarity
    if held is not None:
        column = g.op("Unsqueeze", held(similarity, limit), g.ints(1))
        free = g.op("Where", column, g.number(LOWEST), similarity)
    padded = g.op("Pad", free, g.ints(0, 1, 0, 0), limit)  # in front of each row
    choice = g.op("Hardmax", padded, axis=1, name="choice")
    stays = g.op("Gather", choice, g.index(0), axis=1)
    going = g.op("Less", stays, g.number(0.5))
    partner = g.op("Sub", g.op("ArgMax", choice, axis=1, keepdims=0), g.index(1))
    return Pairs(g, protected, g.slice(choice, 1, 1), stays, going, partner, similarity)


def _mixed(pairs: Pairs, tokens: Single) -> tuple[Name, Name]:
    """Tokens [N, C] and sizes [N, 1] in the new order; destinations become weighted means."""
    g, places, size = pairs.g, pairs.places, tokens.size
    if size is None:
        rows = g.op("Concat", g.op("Shape", tokens.x, start=0, end=1), g.ints(1), axis=0)
        size = g.op("Expand", g.number(1.0), rows)
    _, of_sources, of_destinations = pairs.parts(size)
    total = g.op("Gemm", places, of_sources, of_destinations, transA=1)  # [D, 1]

    def means(sources: Name, destinations: Name) -> Name:
        weights = g.op("Mul", places, of_sources)
        if tokens.wide:
            weights = g.op("Compress", weights, pairs.going, axis=0)
            sources = g.op("Compress", sources, pairs.going, axis=0)
        own = g.op("Mul", destinations, of_destinations)
        return g.op("Div", g.op("Gemm", weights, sources, own, transA=1), total)

    return pairs.joined(tokens.x, means), pairs.joined(size, lambda *_: total)


def _carried(pairs: Pairs, tokens: Single) -> Name:
    """[N] importance in the new order; a destination's is the largest of what became one."""
    g = pairs.g
    if tokens.importance is None:
        raise ValueError("carrying importance through a merge needs it")
    _, sources, destinations = pairs.parts(tokens.importance)
    column = g.op("Unsqueeze", sources, g.ints(1))
    coming = g.reduce("ReduceMax", g.op("Mul", pairs.places, column), [0])
    left = (g.op("Mul", pairs.stays, sources), g.op("Max", destinations, coming))
    front = single.above_all(g, pairs.protected)
    return g.op("Concat", *front, *left, axis=0, name="carried")


def _merged(pairs: Pairs, destinations: Name) -> Name:
    """[N] bool in the new order, the sources that went."""
    g = pairs.g
    number = g.op("Shape", destinations, start=0, end=1)
    none = g.op("Expand", g.op("Cast", g.number(0.0), to=BOOL), number)
    front = [g.op("Cast", g.ints(*([0] * pairs.protected)), to=BOOL)] if pairs.protected else []
    return g.op("Concat", *front, pairs.going, none, axis=0)


def _summed(pairs: Pairs) -> Callable[[Name, Name], Name]:
    """What makes of numbers of sources and destinations the sums of what became one."""
    g = pairs.g
    return lambda sources, own: g.op("Gemm", pairs.places, sources, own, transA=1)


def _went(pairs: Pairs, merged: Name, x: Name) -> Name:
    """[N] the row in the new order of what was in each row; `merged` is `Single.merged`."""
    g = pairs.g
    count = g.op("Shape", x, start=0, end=1)
    rows = g.op("Range", g.index(0), g.op("Squeeze", count, g.ints(0)), g.index(1))
    _, sources, destinations = pairs.parts(rows)
    first = g.op("Add", g.op("Shape", sources), g.index(pairs.protected))  # of destinations
    nowhere = g.op("Expand", g.index(0), g.op("Shape", destinations))
    front = [g.ints(*([0] * pairs.protected))] if pairs.protected else []
    target = g.op("Concat", *front, g.op("Add", first, pairs.partner), nowhere, axis=0)
    there = g.op("Where", merged, target, rows)  # in the new order
    return g.op("ScatterElements", rows, pairs.joined(rows), there, axis=0)
