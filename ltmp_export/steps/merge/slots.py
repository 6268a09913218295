"""Merging by a threshold in ONNX, all images with the same number of slots.

Names written here per block are stable: `similarity`, `partner`, `merged`, `merged_importance`,
`merge_threshold`.
"""

from __future__ import annotations

from dataclasses import replace

from ltmp_export.graph import slots
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.ragged import LOWEST
from ltmp_export.graph.slots import Slots
from ltmp_export.steps.merge.step import Merge


def write(g: GraphBuilder, step: Merge, tokens: Slots) -> Slots:
    """Merge living sources into their most similar living destination if above the threshold."""
    tokens = tokens if tokens.packed else slots.in_front(g, tokens)
    sources, destinations = slots.sources(g, tokens), slots.destinations(g, tokens)
    similarity = slots.similarities(g, tokens)
    living = g.op("Unsqueeze", slots.alive(destinations), g.ints(1))  # [B, 1, D]
    similarity = g.op("Where", living, similarity, g.number(LOWEST))
    best = g.reduce("ReduceMax", similarity, [2], name="similarity")
    partner = g.op("ArgMax", similarity, axis=2, keepdims=0, name="partner")
    above = g.op("Greater", best, g.number(step.threshold, "merge_threshold"))
    merged = g.op("And", above, slots.alive(sources), name="merged")  # [B, S]
    places = slots.pairs(g, partner, destinations.number)
    going = g.op("And", places, g.op("Unsqueeze", merged, g.ints(1)))  # [B, D, S]
    stay = g.op("And", slots.alive(sources), g.op("Not", merged))
    received = slots.merged(g, destinations, sources, going)
    parts = [replace(sources, alive=stay), received]
    if tokens.protected:
        parts.insert(0, slots.part(g, tokens, 0, tokens.protected))
    return replace(slots.concatenated(g, parts), packed=False)
