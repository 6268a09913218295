"""Merging a fixed number in ONNX, all images with the same number of slots.

Names written here per block are stable: `similarity`, `partner` and `ranking`, of the sources by
best similarity; `merged_importance`.
"""

from __future__ import annotations

from ltmp_export.graph import slots
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.slots import Slots
from ltmp_export.plan import pairing
from ltmp_export.steps.merge_most.step import MergeMost


def write(g: GraphBuilder, step: MergeMost, tokens: Slots) -> Slots:
    """Merge the sources of the highest best similarity."""
    sources = pairing.sources(tokens.number, tokens.protected)
    similarity = slots.similarities(g, tokens)
    best = g.reduce("ReduceMax", similarity, [2], name="similarity")
    partner = g.op("ArgMax", similarity, axis=2, keepdims=0, name="partner")
    _, ranking = g.ops("TopK", best, g.ints(sources), names=("ranked", "ranking"), axis=1)
    merging = g.slice(ranking, 1, 0, step.count)  # [B, K]
    to = g.op("GatherElements", partner, merging, axis=1)  # [B, K]
    rows = slots.source_slots(g, merging, tokens.protected)
    parts = [slots.part(g, tokens, place, place + 1) for place in range(tokens.protected)]
    if sources > step.count:
        parts.append(_unmerged(g, step, tokens, g.slice(ranking, 1, step.count), sources))
    destinations = slots.destinations(g, tokens)
    going = slots.pairs(g, to, destinations.number)
    parts.append(slots.merged(g, destinations, slots.taken(g, tokens, rows, step.count), going))
    return slots.concatenated(g, parts)


def _unmerged(g: GraphBuilder, step: MergeMost, tokens: Slots, others: Name, sources: int) -> Slots:
    """The sources that do not merge, by rank, or in their own order."""
    number = sources - step.count
    if not step.ranked:
        others = slots.ascending(g, others, number)
    return slots.taken(g, tokens, slots.source_slots(g, others, tokens.protected), number)
