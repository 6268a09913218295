"""Multiply-accumulates of an image, from its token counts (METHOD §1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ltmp_export.plan.geometry import Vit
from ltmp_export.plan.linears import KEPT, PATCHES, POOLED, RECEIVED, linears
from ltmp_export.plan.plan import Plan


def macs(vit: Vit, counts: Sequence[int], entering: Mapping[int, int] | None = None) -> int:
    """Multiply-accumulates one image takes.

    A block's attention runs on the tokens it receives, its MLP on the tokens it keeps.

    Args:
        vit: Geometry.
        counts: [depth] tokens after each block, class token and its like included.
        entering: Patch tokens made anew before a block (`Plan.entering`), by its index.
    """
    entering = entering or {}
    inner, before = vit.heads * vit.head_width, [vit.tokens, *map(int, counts)]
    received = incoming(vit, counts, entering)
    total = sum(2 * tokens * tokens * inner for tokens in received)  # scores, and what they mix
    for block, made in entering.items():  # likewise
        total += 2 * made * (before[block] - vit.prefix) * vit.width
    rows = layer_rows(vit, counts, entering)
    return total + sum(
        n * layer.ins * layer.outs for n, layer in zip(rows, linears(vit), strict=True)
    )


def layer_rows(vit: Vit, counts: Sequence[int], entering: Mapping[int, int]) -> list[int]:
    """Rows that one image gives to each of the `linears`; the rest as in `macs`."""
    received = incoming(vit, counts, entering)
    found = []
    for layer in linears(vit):
        of_block = layer.block or 0
        rows = {PATCHES: vit.patches, RECEIVED: received[of_block], POOLED: 1}
        found.append(int(counts[of_block]) if layer.rows == KEPT else rows[layer.rows])
    return found


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
