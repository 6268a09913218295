"""Tokens in ONNX where the number of rows is known before running.

Every image has the same N slots, [B, N, C], and N is a number in the graph. Where a fixed number of
tokens is merged or pruned, every slot holds a token. Where thresholds decide, under a budget, an
image's living tokens stand in its first slots; the others are seen by nobody.

There is no operator here whose result has a shape that depends on data, and no scatter (but see
`graph.owners`, of files that tell where their patches are): ranks come
from `TopK` with a constant k (of equal scores the lower slot first), rows from `GatherND`, and a
merge is the product of a [D, S] matrix, who goes where, with the sources. Equal pieces go together
in an order that is fixed. Which slots are sources and which are destinations `plan.pairing` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from onnx import TensorProto

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.positions import Positions
from ltmp_export.plan import pairing
from ltmp_export.plan.scores import IMPORTANCE

if TYPE_CHECKING:
    from ltmp_export.graph.owners import Owners


@dataclass(frozen=True)
class Slots:
    """Tokens between attention and MLP of a block.

    Attributes:
        number: N.
        x: [B, N, C].
        size: [B, N] patches of each token, or None while every token stands for one.
        scores: [B, N] each, by the names of `plan.scores`: those that some step needs.
        metric: [B, N, D] unit vectors, or None if no step needs it.
        alive: [B, N] bool, the slots that hold a token; None where all do.
        protected: Slots in front that are never merged away or pruned.
        owned: [B, N] patches of each token where attention does not weigh by them; None where no
            step needs them, or every token owns one.
        packed: Whether the living stand in front.
        count: [B] living tokens after a budget, or None.
        dropped: [B] tokens that a budget had no room for, or None.
        handed: What steps hand on to those of the same kind in later blocks, by names of theirs.
        positions: Where they lie, where attention knows of it.
        owners: Who owns the patches, or None where nobody asks; see `graph.owners`, which alone
            reads what follows.
        came: [B, N] which slot each was before a step.
        merges: Which slots then [B, n] merged into which [B, n].
        went: [B, any] where each slot then is now, -1 for nowhere, where a step tells it all.
    """

    number: int
    x: Name
    size: Name | None
    scores: Mapping[str, Name]
    metric: Name | None
    alive: Name | None
    protected: int
    owned: Name | None = None
    packed: bool = True
    count: Name | None = None
    dropped: Name | None = None
    handed: Mapping[str, Name] = field(default_factory=dict)
    positions: Positions | None = None
    owners: Owners | None = None
    came: Name | None = None
    merges: tuple[tuple[Name, Name], ...] = ()
    went: Name | None = None

    def score(self, name: str) -> Name:
        """[B, N] a score.

        Raises:
            ValueError: Nobody has offered it.
        """
        if name not in self.scores:
            raise ValueError(f"a step needs {name}, which nobody offers")
        return self.scores[name]


def in_front(g: GraphBuilder, tokens: Slots) -> Slots:
    """The living in front, in their order."""
    number = tokens.number
    places = ascending(g, numbered(g, tokens), number)
    return taken(g, tokens, g.op("Mod", places, g.index(number)), number)


def numbered(g: GraphBuilder, tokens: Slots) -> Name:
    """[B, N] the number of each slot, N more if nothing lives there: by these, the living first."""
    own = g.counting(tokens.number)
    return g.op("Where", alive(tokens), own, g.op("Add", own, g.index(tokens.number)))


def ascending(g: GraphBuilder, values: Name, number: int) -> Name:
    """[B, n] integers, sorted."""
    names = ("ascending", "ascending_places")
    return g.ops("TopK", values, g.ints(number), names=names, axis=1, largest=0)[0]


def in_protected(g: GraphBuilder, places: Name, protected: int) -> Name:
    """Bool, true for the places of protected slots."""
    if protected == 1:
        return g.op("Equal", places, g.index(0))
    return g.op("Less", places, g.index(protected))


def spared(g: GraphBuilder, importance: Name, places: Name, protected: int) -> Name:
    """Bool, who stays whatever a threshold says.

    Args:
        g: Where to write.
        importance: [B, N], of slots that hold no token less than of any other.
        places: [N] 0, 1, 2, …
        protected: P. With none the first of the highest importance stays.
    """
    if protected:
        return in_protected(g, places, protected)  # [N]
    return g.op("Equal", places, g.op("ArgMax", importance, axis=1, keepdims=1))  # [B, N]


def alive(tokens: Slots) -> Name:
    """[B, N] bool, the slots that hold a token.

    Raises:
        ValueError: Every slot holds one, or nobody knows.
    """
    if tokens.alive is None:
        raise ValueError("a budget needs to know who lives")
    return tokens.alive


def similarities(g: GraphBuilder, tokens: Slots) -> Name:
    """[B, S, D] inner products of the sources' and destinations' metric."""
    if tokens.metric is None:
        raise ValueError("matching needs the metric")
    starts = (pairing.first_source(tokens.protected), pairing.first_destination(tokens.protected))
    sources, destinations = (g.slice(tokens.metric, 1, start, step=2) for start in starts)
    return g.op("MatMul", sources, g.op("Transpose", destinations, perm=[0, 2, 1]))


def pairs(g: GraphBuilder, to: Name, destinations: int) -> Name:
    """[B, S] ordinals of destinations → [B, D, S] bool, who goes where."""
    column = g.op("Unsqueeze", g.counting(destinations), g.ints(1))  # [D, 1]
    return g.op("Equal", g.op("Unsqueeze", to, g.ints(1)), column)


def source_slots(g: GraphBuilder, ordinals: Name, protected: int) -> Name:
    """The slots of sources."""
    first = pairing.first_source(protected)
    return g.op("Add", g.op("Mul", ordinals, g.index(2)), g.index(first))


def merged(g: GraphBuilder, destinations: Slots, sources: Slots, going: Name) -> Slots:
    """Destinations [B, D] with what sources [B, S] bring: means of vectors, sums of sizes.

    `going` [B, D, S] bool says who goes where.
    """
    weight = g.op("Cast", going, to=TensorProto.FLOAT)
    pairs_of = merges(g, destinations, sources, weight)
    scores = {}
    if IMPORTANCE in destinations.scores:
        brought = g.op("Mul", weight, g.op("Unsqueeze", sources.scores[IMPORTANCE], g.ints(1)))
        largest = g.reduce("ReduceMax", brought, [2])
        scores[IMPORTANCE] = g.op("Max", destinations.scores[IMPORTANCE], largest)
    own = g.number(1.0)
    if destinations.size is not None and sources.size is not None:
        weight = g.op("Mul", weight, g.op("Unsqueeze", sources.size, g.ints(1)))
        own = g.op("Unsqueeze", destinations.size, g.ints(2))  # [B, D, 1]
    total = g.op("Add", g.reduce("ReduceSum", weight, [2], keepdims=True), own)  # [B, D, 1]
    where = destinations.positions
    if where is not None and sources.positions is not None:
        where = where.merged(g, g.op("Cast", going, to=TensorProto.FLOAT), sources.positions)
    brought = g.op("MatMul", g.op("Div", weight, total), sources.x)  # [B, D, C]
    kept = g.op("Mul", destinations.x, g.op("Div", own, total))
    return replace(
        destinations,
        x=g.op("Add", kept, brought),
        size=g.op("Squeeze", total, g.ints(2)),
        scores=scores,
        metric=None,
        merges=pairs_of,
        positions=where,
    )


def merges(
    g: GraphBuilder, destinations: Slots, sources: Slots, going: Name
) -> tuple[tuple[Name, Name], ...]:
    """Which slots merge into which, by `going` [B, D, S], 1 or 0; each into itself if nowhere."""
    if destinations.came is None or sources.came is None:
        return ()
    place = g.op("ArgMax", going, axis=1, keepdims=0)  # [B, S]
    goes = g.op("Greater", g.reduce("ReduceMax", going, [1]), g.number(0.5))
    target = g.op("GatherElements", destinations.came, place, axis=1)
    return ((sources.came, g.op("Where", goes, target, sources.came)),)


def part(g: GraphBuilder, tokens: Slots, start: int, stop: int | None, step: int = 1) -> Slots:
    """The slots start, start + step, … before stop."""

    def some(values: Name | None) -> Name | None:
        return None if values is None else g.slice(values, 1, start, stop, step)

    number = len(range(tokens.number)[start:stop:step])
    x = g.slice(tokens.x, 1, start, stop, step)
    size = some(tokens.size)
    scores = {name: g.slice(score, 1, start, stop, step) for name, score in tokens.scores.items()}
    where = tokens.positions
    return Slots(
        number, x, size, scores, None, some(tokens.alive), protected=tokens.protected,
        positions=None if where is None else where.taken(lambda rows: str(some(rows))),
        came=some(tokens.came),
    )  # fmt: skip


def sources(g: GraphBuilder, tokens: Slots) -> Slots:
    """Every other slot from the first source."""
    return part(g, tokens, pairing.first_source(tokens.protected), None, 2)


def destinations(g: GraphBuilder, tokens: Slots) -> Slots:
    """Every other slot from the first destination."""
    return part(g, tokens, pairing.first_destination(tokens.protected), None, 2)


def taken(g: GraphBuilder, tokens: Slots, slots: Name, number: int) -> Slots:
    """Those in slots [B, n], in that order."""
    index = g.op("Unsqueeze", slots, g.ints(2))  # [B, n, 1]

    def scalars(values: Name | None) -> Name | None:
        return None if values is None else g.op("GatherElements", values, slots, axis=1)

    def vectors(values: Name) -> Name:
        return g.op("GatherND", values, index, batch_dims=1)

    metric = None if tokens.metric is None else vectors(tokens.metric)
    size = scalars(tokens.size)
    scores = {
        name: g.op("GatherElements", score, slots, axis=1) for name, score in tokens.scores.items()
    }
    alive, owned = scalars(tokens.alive), scalars(tokens.owned)
    where = None if tokens.positions is None else tokens.positions.taken(vectors)
    return Slots(
        number, vectors(tokens.x), size, scores, metric, alive, tokens.protected, owned,
        positions=where,
        came=scalars(tokens.came),
    )  # fmt: skip


def concatenated(g: GraphBuilder, parts: Sequence[Slots], names: str = "merged_{}") -> Slots:
    """One after the other, scores called `names`; where the first have no sizes, theirs are 1."""
    sizes = [part.size for part in parts if part.size is not None]
    size = g.op("Concat", *sizes, axis=1) if sizes[1:] else sizes[0]
    if before := sum(part.number for part in parts if part.size is None):
        size = g.op("Pad", size, g.ints(0, before, 0, 0), g.number(1.0))
    x = g.op("Concat", *(part.x for part in parts), axis=1)
    scores = {
        name: g.op(
            "Concat", *(part.scores[name] for part in parts), axis=1, name=names.format(name)
        )
        for name in parts[0].scores
        if all(name in part.scores for part in parts)
    }
    living = [part.alive for part in parts if part.alive is not None]
    labels = [part.came for part in parts if part.came is not None]
    return Slots(
        number=sum(part.number for part in parts),
        x=x,
        size=size,
        scores=scores,
        metric=None,
        alive=g.op("Concat", *living, axis=1) if len(living) == len(parts) else None,
        protected=parts[0].protected,
        came=g.op("Concat", *labels, axis=1) if labels else None,
        merges=tuple(pair for part in parts for pair in part.merges),
        positions=joined(g, [part.positions for part in parts]),
    )


def joined(g: GraphBuilder, parts: Sequence[Positions | None]) -> Positions | None:
    """Where tokens lie, one part after the other; None where nobody knows."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    return known[0].taken(lambda _: g.op("Concat", *(part.rows for part in known), axis=1))


def with_protected(g: GraphBuilder, tokens: Slots, came: Name | None) -> Name | None:
    """Labels of the protected slots of these tokens, and behind them others, if there are any."""
    if tokens.came is None or came is None:
        return None
    return g.op("Concat", g.slice(tokens.came, 1, 0, tokens.protected), came, axis=1)
