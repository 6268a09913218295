"""Keeping the patch tokens in the middle of clusters in ONNX, all images with the same slots.

Names written here before a block are stable: `score`, the attention that tokens got; `ranking`, the
patch tokens by it; `cost`; and round after round `assigned`, of every patch token the nearest of
the centres, and `medoid`, of every cluster the patch token that becomes its centre.
"""

from __future__ import annotations

from ltmp_export.graph import distances, selected, slots, sums
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.ragged import LOWEST
from ltmp_export.graph.slots import Slots
from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.steps.medoids.step import Medoids


def write(g: GraphBuilder, step: Medoids, tokens: Slots) -> Slots:
    """Keep the medoids, in the order of their clusters."""
    protected, patches = tokens.protected, tokens.number - tokens.protected
    x = g.slice(tokens.x, 1, protected)
    given = g.op("Identity", tokens.score(IMPORTANCE), name="score")
    received = g.slice(given, 1, protected)  # [B, n]
    _, ranking = g.ops("TopK", received, g.ints(patches), names=("ranked", "ranking"), axis=1)
    apart = g.op("Sqrt", distances.squared(g, x, patches))  # [B, n, n]
    cost = g.op("Mul", received, sums.total(g, apart, [2]), name="cost")  # [B, n]
    of_each, dear = g.op("Unsqueeze", cost, g.ints(1)), g.number(-LOWEST)
    centres = g.slice(ranking, 1, 0, step.tokens)  # [B, M]
    assigned, medoids = [], []
    for _ in range(step.rounds):
        places = g.op("Unsqueeze", centres, g.ints(2))
        to_centres = g.op("GatherND", apart, places, batch_dims=1)  # [B, M, n]
        assigned.append(g.op("ArgMin", to_centres, axis=1, keepdims=0))  # [B, n]
        mine = slots.pairs(g, assigned[-1], step.tokens)  # [B, M, n]
        centres = g.op("ArgMin", g.op("Where", mine, of_each, dear), axis=2, keepdims=0)
        medoids.append(centres)
    for name, parts in (("assigned", assigned), ("medoid", medoids)):
        g.keep(g.op("Concat", *parts, axis=1, name=name))
    return selected.kept(g, tokens, centres, step.tokens)
