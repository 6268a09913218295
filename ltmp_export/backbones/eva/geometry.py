"""What timm's `Eva` is here: a ViT that mostly has rotary positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.backbones.positioned.geometry import Positioned

NAME = "a ViT of timm's Eva class"
CLASSES = ("Eva",)
KEY = r"rope\.freqs|blocks\.\d+\.attn\.(q_proj\.weight|q_bias)"
NAMES = r"(eva02|eva_giant)_.*|vit_pe_.*|vit_.*_(rope|dinov3|lingbot|sapiens2)(_.*)?"
FIRST = r"patch_embed\.proj"
UNUSED = r"(.*\.)?rope\.(?!freqs).*|mask_token|.*\.k_bias"


def tells(keys: frozenset[str]) -> bool:
    """Whether it is one, by what plain ViTs of timm's do not have together.

    That is scales as BEiT calls them with registers or without positions in front, or a norm before
    the blocks with attention pooling or without one behind them.
    """
    if "blocks.0.gamma_1" in keys:
        return "reg_token" in keys or "pos_embed" not in keys or "norm_pre.weight" in keys
    behind = {"norm.weight", "fc_norm.weight"} & keys
    return "norm_pre.weight" in keys and ("attn_pool.latent" in keys or not behind)


@dataclass(frozen=True)
class Eva(Positioned):
    """One of them."""

    kind: ClassVar[str] = "eva"
