"""What a block's steps are given, and leave, where each image keeps its own number of tokens."""

from __future__ import annotations

from ltmp_export.backbones.vit import attention
from ltmp_export.backbones.vit.layers import VitLayers
from ltmp_export.backbones.vit.tokens import Packed
from ltmp_export.graph import owners, single
from ltmp_export.graph.builder import Name
from ltmp_export.graph.owners import Owners
from ltmp_export.graph.packed import Candidates, Reduced
from ltmp_export.graph.single import Single
from ltmp_export.plan.scores import CLASS_VALUES, IMPORTANCE
from ltmp_export.plan.step import Step
from ltmp_export.steps import lowering

# From how many channels on a merge pays for leaving out the rows of sources that stay.
WIDE = 128


def candidates(
    layers: VitLayers,
    steps: tuple[Step, ...],
    tokens: Packed,
    weights: Name,
    values: Name,
    metric: Name | None,
) -> Candidates:
    """What the steps decide on in a batch, with just the scores they will read."""
    g, vit, layout = layers.g, layers.vit, tokens.layout
    alive, total = layout.valid, g.op("Shape", tokens.x, end=1)
    scores = attention.scores(layers, steps, layout, weights, values)
    return Candidates(
        layout=layout,
        rows=layout.rows,
        alive=alive,
        total=total,
        size=tokens.size,
        importance=scores.get(IMPORTANCE),
        metric=metric,
        metric_width=vit.key_width,
        class_values=scores.get(CLASS_VALUES),
    )


def owned(
    layers: VitLayers, steps: tuple[Step, ...], tokens: Packed, reduced: Reduced, x: Name
) -> Owners | None:
    """Who owns the patches behind the steps of a block on the rows of a batch."""
    if tokens.owners is None:
        return None
    g = layers.g
    total = g.op("Shape", tokens.x, end=1)
    drops = any(step.drops for step in steps)
    return owners.through_packed(g, tokens.owners, reduced, total, x, drops)


def of_one(
    layers: VitLayers,
    steps: tuple[Step, ...],
    tokens: Packed,
    weights: Name,
    values: Name,
    metric: Name | None,
) -> Packed:
    """What a block's steps leave of the tokens [N, C] of one image."""
    g, vit, layout = layers.g, layers.vit, tokens.layout
    column = None if tokens.size is None else g.op("Unsqueeze", tokens.size, g.ints(1))
    scores = attention.scores(layers, steps, layout, weights, values)
    left = lowering.of_one(g, steps, Single(
        tokens.x, column, scores.get(IMPORTANCE), metric, vit.prefix, wide=vit.width >= WIDE,
        positions=tokens.positions, owners=tokens.owners, class_values=scores.get(CLASS_VALUES),
    ))  # fmt: skip
    size = None if left.size is None else g.reshape(left.size, -1, name="size")
    layout = single.layout_of(g, left.x, layout.most, vit.prefix)
    return Packed(left.x, size, layout, positions=left.positions, owners=left.owners)
