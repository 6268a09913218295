"""Multiply-accumulates of an image, from its token counts (METHOD §1)."""

from __future__ import annotations

from collections.abc import Sequence

from ltmp_export.plan.geometry import Vit
from ltmp_export.plan.linears import COARSE, KEPT, PATCHES, POOLED, RECEIVED, linears
from ltmp_export.plan.plan import Plan, Rows, dense_plan


def macs(vit: Vit, counts: Sequence[int], plan: Plan | None = None) -> int:
    """Multiply-accumulates one image takes.

    A block's attention runs on the tokens it receives, its MLP on the tokens it keeps; a step may
    have matrix products of its own.

    Args:
        vit: Geometry.
        counts: [depth] tokens that each block's MLP runs on, class token and its like included.
        plan: What happens to the tokens before and in a block; by default each receives what the
            one before keeps.
    """
    plan = plan or dense_plan(vit.depth)
    rows = plan.rows(vit.tokens, vit.prefix, counts)
    inner = vit.heads * vit.head_width
    total = sum(2 * block.received**2 * inner for block in rows)  # scores, and what they mix
    total += own_products(vit, plan, rows)
    return total + sum(
        n * layer.ins * layer.outs
        for n, layer in zip(layer_rows(vit, rows), linears(vit), strict=True)
    )


def own_products(vit: Vit, plan: Plan, rows: Sequence[Rows]) -> int:
    """Multiply-accumulates of the reduction's own matrix products."""
    total, left = 0, vit.tokens
    for block, (given, received, kept) in enumerate(rows):
        if block in plan.before:
            total += plan.before[block].macs(given, vit.prefix, vit.width)
        left = plan.behind(block, given, received, kept)
        for step in plan.blocks[block]:
            total += step.macs(received, vit.prefix, vit.width)
            received = step.after(received, vit.prefix) or received
    if vit.depth in plan.before:
        total += plan.before[vit.depth].macs(left, vit.prefix, vit.width)
    return total


def layer_rows(vit: Vit, rows: Sequence[Rows]) -> list[int]:
    """Rows that one image gives to each of the `linears`."""
    found = []
    for layer in linears(vit):
        block = rows[layer.block or 0]
        by_word = {
            PATCHES: vit.patches,
            COARSE: vit.patches // 4,
            RECEIVED: block.received,
            KEPT: block.kept,
            POOLED: 1,
        }
        found.append(by_word[layer.rows])
    return found


def dense_macs(vit: Vit) -> int:
    """Multiply-accumulates of the same ViT when nothing is reduced; 4.60 G for DeiT-S."""
    return macs(vit, (vit.tokens,) * vit.depth)


def executed_macs(vit: Vit, plan: Plan, counts: Sequence[int]) -> int:
    """Multiply-accumulates that a plan's model takes for an image of these counts [depth]."""
    return macs(vit, plan.executed(counts), plan)


def share(vit: Vit, plan: Plan) -> float:
    """Share of the dense ones that each image takes, where none has a say in it."""
    return executed_share(vit, plan, [plan.counts(vit.tokens, vit.prefix)])


def executed_share(vit: Vit, plan: Plan, counts: Sequence[Sequence[int]]) -> float:
    """Mean share of the dense ones that images of these counts [n, depth] take."""
    total = sum(executed_macs(vit, plan, image) for image in counts)
    return total / len(counts) / dense_macs(vit)
