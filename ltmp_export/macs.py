"""Multiply-accumulates of an image, from its token counts (SPEC §1)."""

from __future__ import annotations

from collections.abc import Sequence

from ltmp_export.vit import Vit


def macs(vit: Vit, counts: Sequence[int]) -> int:
    """Multiply-accumulates one image takes.

    A block's attention runs on the tokens it receives, its MLP on the tokens it keeps.

    Args:
        vit: Geometry.
        counts: [depth] tokens after each block, class token included.
    """
    c, inner = vit.width, vit.heads * vit.head_width
    patch = vit.patch_size[0] * vit.patch_size[1] * vit.in_chans
    total = vit.patches * patch * c + vit.classes * c
    incoming = vit.patches + 1
    for outgoing in map(int, counts):
        total += 4 * incoming * c * inner + 2 * incoming * incoming * inner
        total += 2 * outgoing * c * vit.mlp_width
        incoming = outgoing
    return total


def dense_macs(vit: Vit) -> int:
    """Multiply-accumulates of the same ViT when nothing is reduced; 4.60 G for DeiT-S."""
    return macs(vit, (vit.patches + 1,) * vit.depth)
