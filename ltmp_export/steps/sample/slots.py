"""Sampling tokens by the class token's attention in ONNX, all images with the same slots.

Names written here per block are stable: `cdf`, running shares of what tokens are sampled by, and
`kept`.
"""

from __future__ import annotations

from dataclasses import replace

from ltmp_export.graph import slots
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.slots import Slots
from ltmp_export.plan.scores import CLASS_VALUES
from ltmp_export.steps.sample import points
from ltmp_export.steps.sample.step import Sample


def write(g: GraphBuilder, step: Sample, tokens: Slots) -> Slots:
    """Drop slots that no point takes; protected ones stay."""
    places = g.counting(tokens.number)
    front = slots.in_protected(g, places, tokens.protected)
    patches = g.op("And", slots.alive(tokens), g.op("Not", front))
    hit = points.of_slots(g, step, tokens.score(CLASS_VALUES), patches, places)
    return replace(tokens, alive=g.op("Or", hit, front, name="kept"), packed=False)
