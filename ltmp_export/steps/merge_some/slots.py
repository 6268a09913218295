"""Merging by a threshold and a cap in ONNX, all images with the same number of slots.

The names written here per block are those of `merge`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import TensorProto

from ltmp_export.graph import slots
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.ragged import LOWEST
from ltmp_export.graph.slots import Slots
from ltmp_export.plan import pairing
from ltmp_export.steps.merge import slots as merging
from ltmp_export.steps.merge_some.packed import held
from ltmp_export.steps.merge_some.step import MergeSome


def write(g: GraphBuilder, step: MergeSome, tokens: Slots) -> Slots:
    """Merge living sources into their most similar living destination if above the threshold."""
    tokens = tokens if tokens.packed else slots.in_front(g, tokens)
    protected, number = tokens.protected, tokens.number

    def hold(best: Name, above: Name, there: Name) -> Name:
        living = g.op("Cast", slots.alive(tokens), to=TensorProto.INT64)
        count = g.reduce("ReduceSum", living, [1], keepdims=True)
        return held(g, best, above, there, count=count, protected=protected)

    found = merging.match(g, step.threshold, tokens, hold if step.capped(protected) else None)
    left = merging.merge(g, tokens, found, "joined_{}")
    flags = g.op("Cast", found.merged, to=TensorProto.FLOAT)
    some = g.op("Greater", g.reduce("ReduceSum", flags, [1], keepdims=True), g.number(0.5))
    regrouped = _ranked(g, left, found.best) if step.ranked else g.counting(number)
    order = g.op("Where", some, regrouped, _standing(g, number, protected))  # [B, N]
    made = slots.taken(g, left, order, number)
    named = {k: g.op("Identity", v, name=f"merged_{k}") for k, v in made.scores.items()}
    return replace(made, packed=False, merges=left.merges, scores=named)


def _standing(g: GraphBuilder, number: int, protected: int) -> Name:
    """[N] where in [protected ; sources ; destinations] each slot of before is."""
    sources = np.arange(pairing.first_source(protected), number, 2)
    destinations = np.arange(pairing.first_destination(protected), number, 2)
    joined = np.concatenate([np.arange(protected), sources, destinations])
    return g.stored(f"const/standing[{number},{protected}]", joined.argsort())


def _ranked(g: GraphBuilder, left: Slots, best: Name) -> Name:
    """[B, N] living sources in order of descending similarity; no slot is protected."""
    sources = pairing.sources(left.number, 0)
    known = g.op("Where", g.slice(slots.alive(left), 1, 0, sources), best, g.number(LOWEST))
    _, ranking = g.ops("TopK", known, g.ints(sources), names=("ranked", "ranking"), axis=1)
    own = g.slice(g.counting(left.number), 0, sources)
    batch = g.op("Shape", best, start=0, end=1)
    rest = g.op("Expand", own, g.op("Concat", batch, g.ints(left.number - sources), axis=0))
    return g.op("Concat", ranking, rest, axis=1)
