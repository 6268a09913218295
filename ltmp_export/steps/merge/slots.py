"""Merging by a threshold in ONNX, all images with the same number of slots.

Names written here per block are stable: `similarity`, `partner`, `merged`, `merged_importance`,
`merge_threshold`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from ltmp_export.graph import slots
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.ragged import LOWEST
from ltmp_export.graph.slots import Slots
from ltmp_export.steps.merge.step import Merge


class Match(NamedTuple):
    """Sources and what becomes of them.

    Attributes:
        sources: These.
        destinations: The others that take part.
        best: [B, S] similarity to the most similar destination.
        partner: [B, S] which that is.
        merged: [B, S] bool, who merges.
    """

    sources: Slots
    destinations: Slots
    best: Name
    partner: Name
    merged: Name


def write(g: GraphBuilder, step: Merge, tokens: Slots) -> Slots:
    """Merge living sources into their most similar living destination if above the threshold."""
    tokens = tokens if tokens.packed else slots.in_front(g, tokens)
    return merge(g, tokens, match(g, step.threshold, tokens))


def match(
    g: GraphBuilder,
    threshold: float,
    tokens: Slots,
    held: Callable[[Name, Name, Name], Name] | None = None,
) -> Match:
    """Match sources with destinations, see `merge.packed.match`."""
    sources, destinations = slots.sources(g, tokens), slots.destinations(g, tokens)
    similarity = slots.similarities(g, tokens)
    living = g.op("Unsqueeze", slots.alive(destinations), g.ints(1))  # [B, 1, D]
    similarity = g.op("Where", living, similarity, g.number(LOWEST))
    best = g.reduce("ReduceMax", similarity, [2], name="similarity")
    partner = g.op("ArgMax", similarity, axis=2, keepdims=0, name="partner")
    above = g.op("Greater", best, g.number(threshold, "merge_threshold"))
    there = slots.alive(sources)
    if held is not None:
        above = g.op("And", above, there)
        there = g.op("Not", held(best, above, there))
    merged = g.op("And", above, there, name="merged")  # [B, S]
    return Match(sources, destinations, best, partner, merged)


def merge(g: GraphBuilder, tokens: Slots, found: Match, names: str = "merged_{}") -> Slots:
    """Merge sources into destinations, [protected ; sources ; destinations] then.

    Args:
        g: Where to write.
        tokens: All.
        found: Who merges.
        names: What scores are then called.
    """
    sources, destinations = found.sources, found.destinations
    places = slots.pairs(g, found.partner, destinations.number)
    going = g.op("And", places, g.op("Unsqueeze", found.merged, g.ints(1)))  # [B, D, S]
    stay = g.op("And", slots.alive(sources), g.op("Not", found.merged))
    received = slots.merged(g, destinations, sources, going)
    parts = [replace(sources, alive=stay), received]
    if tokens.protected:
        parts.insert(0, slots.part(g, tokens, 0, tokens.protected))
    return replace(slots.concatenated(g, parts, names), packed=False)
