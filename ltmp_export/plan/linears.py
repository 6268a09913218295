"""The linear layers of a ViT, listed once: where most of its multiply-accumulates are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ltmp_export.plan.geometry import Vit

# What an image gives a layer a row of: each patch, each token that the block receives, each that it
# keeps, or the one that is classified.
PATCHES, RECEIVED, KEPT, POOLED = "patches", "received", "kept", "pooled"
EMBEDDING = "patch_embed.proj"  # a convolution that is linear in the pixels of a patch


class Linear(NamedTuple):
    """A linear layer: rows [T, ins] → [T, outs].

    Attributes:
        path: Of its weights, by timm's names.
        ins: Inputs.
        outs: Outputs.
        rows: What it has a row of.
        block: Index of its block, or None.
    """

    path: str
    ins: int
    outs: int
    rows: str
    block: int | None = None


def linears(vit: Vit) -> Iterator[Linear]:
    """All of them in the order of the computation."""
    c, inner = vit.width, vit.heads * vit.head_width
    patch = vit.patch_size[0] * vit.patch_size[1] * vit.in_chans
    yield Linear(EMBEDDING, patch, c, PATCHES)
    for block in range(vit.depth):
        path = f"blocks.{block}"
        yield Linear(f"{path}.attn.qkv", c, 3 * inner, RECEIVED, block)
        yield Linear(f"{path}.attn.proj", inner, c, RECEIVED, block)
        yield Linear(f"{path}.mlp.fc1", c, vit.mlp_width, KEPT, block)
        yield Linear(f"{path}.mlp.fc2", vit.mlp_width, c, KEPT, block)
    for path in ("head", "head_dist")[: vit.classifiers]:
        yield Linear(path, c, vit.classes, POOLED)
