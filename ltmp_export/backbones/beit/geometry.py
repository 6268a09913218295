"""What timm's `Beit` is here: a ViT with a bias for each pair of relative positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.backbones.positioned.geometry import Positioned

NAME = "a BEiT"
CLASSES = ("Beit",)
KEY = r"blocks\.\d+\.attn\.relative_position_bias_table|rel_pos_bias\.relative_position_bias_table"
NAMES = r"beit(v2)?_.*"
FIRST = r"patch_embed\.proj"
UNUSED = r".*relative_position_index|mask_token|.*\.k_bias"


@dataclass(frozen=True)
class Beit(Positioned):
    """One of them."""

    kind: ClassVar[str] = "beit"
