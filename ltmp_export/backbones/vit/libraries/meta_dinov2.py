"""Meta's DINOv2, where its names are not timm's: registers, SwiGLU, blocks in chunks.

What else its files hold is timm's by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ltmp_export.backbones.vit.libraries.parts import (
    Taken,
    Weights,
    gated,
    same,
    without_class_position,
)
from ltmp_export.statements.gather import Said

NAME = "Meta's DINOv2"
KEY = r"register_tokens|blocks\.\d+\.mlp\.w12\.weight|blocks\.\d+\.\d+\.ls1\.gamma"
FIRST = r"patch_embed\.proj"

_CODE = "the code of DINOv2"
_CHUNK = re.compile(r"blocks\.\d+\.(\d+)\.")  # the second number counts through all chunks
_NAMES = {"register_tokens": "reg_token"}
_LAYERS = {".mlp.w12.": ".mlp.fc1.", ".mlp.w3.": ".mlp.fc2."}


def take(weights: Weights, config: Mapping[str, Any], source: str) -> Taken:
    """The model under timm's names; with registers the class token gets its position added."""
    parts = {}
    for key in weights:
        name = _CHUNK.sub(r"blocks.\1.", _NAMES.get(key, key), count=1)
        for theirs, ours in _LAYERS.items():
            name = name.replace(theirs, ours)
        parts[name] = same(weights, key)
    said = {"act": Said("gelu", _CODE), "norm_eps": Said(1e-6, _CODE), "gp": Said("token", _CODE)}
    if any(".mlp.w12." in key for key in weights):
        said |= gated(_CODE)
    if {"reg_token", "cls_token", "pos_embed"} <= parts.keys():
        placed = without_class_position(weights, "cls_token", "pos_embed")
        parts["cls_token"], parts["pos_embed"] = placed
        said["no_embed_class"] = Said(True, "the positions of its patches alone")
    return Taken(parts, said, ())
