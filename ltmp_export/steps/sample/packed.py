"""Sampling tokens by the class token's attention in ONNX, each image with rows of its own number.

Names written here per block are stable: `cdf`, running shares of what tokens are sampled by, and
`kept`.
"""

from __future__ import annotations

from dataclasses import replace

from ltmp_export.graph import slots
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.packed import Candidates
from ltmp_export.steps.sample import points
from ltmp_export.steps.sample.step import Sample


def write(g: GraphBuilder, step: Sample, tokens: Candidates) -> Candidates:
    """Drop slots that no point takes; protected ones stay."""
    if tokens.class_values is None:
        raise ValueError("sampling needs values")
    places = tokens.layout.position
    front = slots.in_protected(g, places, tokens.layout.protected)
    patches = g.op("And", tokens.alive, g.op("Not", front))
    hit = points.of_slots(g, step, tokens.class_values, patches, places)
    return replace(tokens, alive=g.op("Or", hit, front, name="kept"), gaps=True)
