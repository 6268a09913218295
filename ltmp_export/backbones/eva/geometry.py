"""What timm's `Eva` is here: a ViT that mostly has rotary positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.backbones.positioned.geometry import Positioned

NAME = "a ViT of timm's Eva class"
CLASSES = ("Eva",)
KEY = (
    r"rope\.freqs|blocks\.\d+\.attn\.q_proj\.weight|blocks\.\d+\.gamma_1"
    r"|blocks\.\d+\.attn\.q_bias"
)
FIRST = r"patch_embed\.proj"
UNUSED = r"(.*\.)?rope\.(?!freqs).*|mask_token|.*\.k_bias"


@dataclass(frozen=True)
class Eva(Positioned):
    """One of them."""

    kind: ClassVar[str] = "eva"
