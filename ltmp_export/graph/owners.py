"""Which token each patch of an image is part of, in ONNX, composed block by block.

Only what is asked for it is written: a file without the outputs that need it has none of this. What
a block's steps did is read off their result: rows that are left of packed ones (`packed.Reduced`),
labels that slots carry (`Slots.came`), and who merged into whom. So steps need not know of it.

Shapes: B images, P patches, T packed rows, N slots, C channels. Integers are scattered here, to
places that are all different, or that get the same number from whoever writes there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.packed import Reduced, merged_rows
from ltmp_export.graph.ragged import Layout
from ltmp_export.graph.slots import Slots

_NOBODY = -1


@dataclass(frozen=True)
class Owners:
    """Who owns the patches.

    Attributes:
        place: [B, P] the packed row, or the slot, of the token that a patch is part of; -1 where it
            is pruned.
        lost: [B, P, C] of pruned patches the vector that owned them as it stood when it was
            decided; None while none is pruned, or where nobody asks.
        wanted: Whether somebody asks for these vectors.
    """

    place: Name
    lost: Name | None = None
    wanted: bool = False

    def living(self, g: GraphBuilder) -> Name:
        """[B, P] bool, the patches that a token owns."""
        return g.op("Greater", self.place, g.index(_NOBODY))

    def somewhere(self, g: GraphBuilder) -> Name:
        """[B, P] places, of pruned patches the first one."""
        return g.op("Max", self.place, g.index(0))

    def moved(self, g: GraphBuilder, place: Name, vectors: Name | None) -> Owners:
        """The same with other places, of patches that were owned before.

        Args:
            g: Where to write.
            place: [B, P] new places of those that are owned.
            vectors: [B, P, C] of their owners, for those whose place is -1 now; None where no patch
                can be pruned.
        """
        living = self.living(g)
        place = g.op("Where", living, place, g.index(_NOBODY))
        if not self.wanted or vectors is None:
            return replace(self, place=place)
        gone = g.op("And", living, g.op("Less", place, g.index(0)))
        before = g.number(0.0) if self.lost is None else self.lost
        lost = g.op("Where", g.op("Unsqueeze", gone, g.ints(2)), vectors, before)
        return replace(self, place=place, lost=lost)


def first(
    g: GraphBuilder, layout: Layout, tokens: int, prefix: int, *, static: bool, wanted: bool
) -> Owners:
    """Of the tokens before the first block, of which each patch has its own.

    Args:
        g: Where to write.
        layout: Where they are.
        tokens: Of an image.
        prefix: How many of them stand before the patches.
        static: Whether places are slots, not packed rows.
        wanted: As of `Owners`.
    """
    places = layout.rows  # [B, N]
    if static and layout.offset is not None:
        places = g.op("Sub", places, layout.offset)
    return Owners(g.slice(places, 1, prefix, tokens), wanted=wanted)


def through_packed(
    g: GraphBuilder, owners: Owners, reduced: Reduced, total: Name, x: Name, drops: bool
) -> Owners:
    """Owners after what a block's steps have decided about packed rows.

    Args:
        g: Where to write.
        owners: Before it.
        reduced: What they have decided.
        total: [1] T.
        x: [T, C] the rows they have decided about.
        drops: Whether a patch may be pruned.
    """
    became = _range(g, total)  # [T]
    if reduced.merges is not None:
        merges = reduced.merges
        present = g.op("Greater", merges.present, g.number(0.5))
        joins = g.op("Where", present, merges.source, merges.target)
        became = _scattered(g, became, g.reshape(joins, -1), g.reshape(merges.target, -1))
    nobody, left = g.op("Expand", g.index(_NOBODY), total), reduced.rows
    stays = _scattered(g, nobody, left, _range_of(g, left))
    last = g.op("Gather", became, owners.somewhere(g), axis=0)  # [B, P]
    vectors = None
    if drops and owners.wanted:
        vectors = g.op("Gather", merged_rows(g, reduced, x), last, axis=0)
    return owners.moved(g, g.op("Gather", stays, last, axis=0), vectors)


def labelled(g: GraphBuilder, tokens: Slots) -> Slots:
    """Slots that carry where they were before the next step."""
    if tokens.owners is None:
        return tokens
    return replace(tokens, came=_everywhere(g, tokens, g.counting(tokens.number)), merges=())


def through_slots(g: GraphBuilder, given: Slots, left: Slots, drops: bool) -> Slots:
    """What a step left of slots that were `labelled`, with their owners."""
    owners = given.owners
    if owners is None:
        return left
    left = replace(left, owners=owners)
    if left.came == given.came and left.went is None:
        return left
    went = left.went
    if went is None:
        if left.came is None:
            raise ValueError("a step does not say where its slots come from")
        there = _everywhere(g, left, g.counting(left.number))
        nobody = g.op("Expand", g.index(_NOBODY), g.op("Shape", given.came or ""))
        went = g.op("ScatterElements", nobody, left.came, there, axis=1)
        for source, target in left.merges:
            into = g.op("GatherElements", went, target, axis=1)
            went = g.op("ScatterElements", went, source, into, axis=1)
    somewhere = owners.somewhere(g)
    place = g.op("GatherElements", went, somewhere, axis=1)
    vectors = _vectors(g, given.x, somewhere) if drops and owners.wanted else None
    return replace(left, owners=owners.moved(g, place, vectors), came=None, merges=(), went=None)


def within(g: GraphBuilder, left: Slots) -> Owners | None:
    """Owners among the slots that hold a token under a budget; others own nothing any more."""
    owners = left.owners
    if owners is None or left.count is None:
        return owners
    holds = g.op("Less", owners.place, g.op("Unsqueeze", left.count, g.ints(1)))
    place = g.op("Where", holds, owners.place, g.index(_NOBODY))
    vectors = _vectors(g, left.x, owners.somewhere(g)) if owners.wanted else None
    return owners.moved(g, place, vectors)


def _vectors(g: GraphBuilder, x: Name, place: Name) -> Name:
    """[B, N, C] and places [B, P] → [B, P, C]."""
    return g.op("GatherND", x, g.op("Unsqueeze", place, g.ints(2)), batch_dims=1)


def _everywhere(g: GraphBuilder, tokens: Slots, values: Name) -> Name:
    """[n] → [B, n]."""
    batch = g.op("Shape", tokens.x, start=0, end=1)
    return g.op("Expand", values, g.op("Concat", batch, g.ints(tokens.number), axis=0))


def _scattered(g: GraphBuilder, values: Name, places: Name, new: Name) -> Name:
    return g.op("ScatterElements", values, places, new, axis=0)


def _range_of(g: GraphBuilder, values: Name) -> Name:
    """0, 1, 2, … for each of these [n]."""
    return _range(g, g.op("Shape", values))


def _range(g: GraphBuilder, stop: Name) -> Name:
    """0, 1, 2, … below a number [1]."""
    return g.op("Range", g.index(0), g.op("Squeeze", stop, g.ints(0)), g.index(1))
