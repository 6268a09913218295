"""Multiply-accumulates of an image, from its token counts (METHOD §1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ltmp_export.plan.geometry import Vit
from ltmp_export.plan.plan import Plan


def macs(vit: Vit, counts: Sequence[int], entering: Mapping[int, int] | None = None) -> int:
    """Multiply-accumulates one image takes.

    A block's attention runs on the tokens it receives, its MLP on the tokens it keeps.

    Args:
        vit: Geometry.
        counts: [depth] tokens after each block, class token and its like included.
        entering: Patch tokens made anew before a block (`Plan.entering`), by its index.
    """
    c, inner = vit.width, vit.heads * vit.head_width
    patch = vit.patch_size[0] * vit.patch_size[1] * vit.in_chans
    total = vit.patches * patch * c + vit.classifiers * vit.classes * c
    before = [vit.tokens, *map(int, counts)]
    for block, made in (entering or {}).items():  # scores and mixtures
        total += 2 * made * (before[block] - vit.prefix) * c
    for received, kept in zip(incoming(vit, counts, entering or {}), map(int, counts), strict=True):
        total += 4 * received * c * inner + 2 * received * received * inner
        total += 2 * kept * c * vit.mlp_width
    return total


def incoming(vit: Vit, counts: Sequence[int], entering: Mapping[int, int]) -> list[int]:
    """[depth] tokens that each block receives; the rest as in `macs`."""
    before = [vit.tokens, *map(int, counts[:-1])]
    return [
        vit.prefix + entering[block] if block in entering else tokens
        for block, tokens in enumerate(before)
    ]


def dense_macs(vit: Vit) -> int:
    """Multiply-accumulates of the same ViT when nothing is reduced; 4.60 G for DeiT-S."""
    return macs(vit, (vit.tokens,) * vit.depth)


def executed_macs(vit: Vit, plan: Plan, counts: Sequence[int]) -> int:
    """Multiply-accumulates that a plan's model takes for an image of these counts [depth]."""
    return macs(vit, plan.executed(counts), plan.entering())


def executed_share(vit: Vit, plan: Plan, counts: Sequence[Sequence[int]]) -> float:
    """Mean share of the dense ones that images of these counts [n, depth] take."""
    total = sum(executed_macs(vit, plan, image) for image in counts)
    return total / len(counts) / dense_macs(vit)
