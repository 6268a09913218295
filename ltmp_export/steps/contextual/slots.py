"""Keeping dominant patches, and merging the others, in ONNX, all images with the same slots.

Names written here per block are stable: `ranking`, the patches by the class token's attention, and
`partner`, of the sources among the targets.
"""

from __future__ import annotations

from dataclasses import replace

from onnx import TensorProto

from ltmp_export.graph import slots
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.slots import Slots
from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.steps.contextual.step import Contextual


def write(g: GraphBuilder, step: Contextual, tokens: Slots) -> Slots:
    """Keep some, merge the others."""
    protected, patches = tokens.protected, tokens.number - tokens.protected
    score = g.slice(tokens.score(CLASS_ATTENTION), 1, protected)  # [B, n]
    _, ranking = g.ops("TopK", score, g.ints(patches), names=("ranked", "ranking"), axis=1)
    places = [
        g.op("Add", slots.ascending(g, ordinals, number), g.index(protected))
        for ordinals, number in (
            (g.slice(ranking, 1, 0, step.keep), step.keep),
            (g.slice(ranking, 1, step.keep), patches - step.keep),
        )
    ]
    kept = slots.taken(g, tokens, places[0], step.keep)
    targets, sources = (
        slots.taken(g, tokens, g.op("Gather", places[1], g.ints(*rows), axis=1), len(rows))
        for rows in step.split(patches)
    )
    going = _going(g, targets, sources)
    number = g.op("Max", g.reduce("ReduceSum", going, [2], keepdims=True), g.number(1.0))
    made = g.op("Add", targets.x, g.op("Div", g.op("MatMul", going, sources.x), number))
    front = g.slice(tokens.x, 1, 0, protected)
    came = None
    if kept.came is not None and targets.came is not None:
        came = g.op("Concat", kept.came, targets.came, axis=1)
    return replace(
        tokens,
        number=step.after(tokens.number, protected),
        x=g.op("Concat", front, kept.x, made, axis=1),
        size=None,
        scores={},
        metric=None,
        came=slots.with_protected(g, tokens, came),
        merges=slots.merges(g, targets, sources, going),
    )


def _going(g: GraphBuilder, targets: Slots, sources: Slots) -> Name:
    """[B, T, S] 1 where a source merges into a target, else 0.

    Raises:
        ValueError: Nobody offers what tokens are compared by.
    """
    if targets.metric is None or sources.metric is None:
        raise ValueError("matching needs the metric")
    similarity = g.op("MatMul", sources.metric, g.op("Transpose", targets.metric, perm=[0, 2, 1]))
    partner = g.op("ArgMax", similarity, axis=2, keepdims=0, name="partner")
    return g.op("Cast", slots.pairs(g, partner, targets.number), to=TensorProto.FLOAT)
