"""Sorting patches by what the class token attends to in ONNX, all images with the same slots.

The name written here per block is stable: `ranking`, the patch tokens by that attention.
"""

from __future__ import annotations

from ltmp_export.graph import selected, slots
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.slots import Slots
from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.steps.rank.step import Rank


def write(g: GraphBuilder, step: Rank, tokens: Slots) -> Slots:
    """Sort them behind the protected slots, and keep the first."""
    protected, patches = tokens.protected, tokens.number - tokens.protected
    score = g.slice(tokens.score(CLASS_ATTENTION), 1, protected)  # [B, n]
    _, ranking = g.ops("TopK", score, g.ints(patches), names=("ranked", "ranking"), axis=1)
    stay = ranking if step.keep == patches else g.slice(ranking, 1, 0, step.keep)
    order = selected.behind_protected(g, stay, protected, step.keep)
    return slots.taken(g, tokens, order, protected + step.keep)
