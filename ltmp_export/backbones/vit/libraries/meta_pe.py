"""Meta's Perception Encoder (facebookresearch/perception_models), a model of timm's `Eva`.

Its image tower has the names of open_clip's, and rotary positions that its weights do not show: its
name has to be stated. It is told by its attention pooling, or where no norm stands behind blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ltmp_export.backbones.vit.libraries import open_clip
from ltmp_export.backbones.vit.libraries.hugging_face_siglip import parted
from ltmp_export.backbones.vit.libraries.parts import Taken, Weights, projection

NAME = "Meta's Perception Encoder"
KEY = r"attn_pool\.probe"
FIRST = r"(?:visual\.)?conv1"

_TABLE = replace(
    open_clip.TABLE,
    outer={
        **open_clip.TABLE.outer,
        "attn_pool.probe": "attn_pool.latent",
        "attn_pool.layernorm": "attn_pool.norm",
        "attn_pool.mlp.c_fc": "attn_pool.mlp.fc1",
        "attn_pool.mlp.c_proj": "attn_pool.mlp.fc2",
        "attn_pool.attn.out_proj": "attn_pool.proj",
        "attn_pool.attn.in_proj_weight": "attn_pool.in_proj.weight",
        "attn_pool.attn.in_proj_bias": "attn_pool.in_proj.bias",
    },
    inner={**open_clip.TABLE.inner, "ls_1.gamma": "gamma_1", "ls_2.gamma": "gamma_2"},
)


def tells(keys: Iterable[str]) -> bool:
    """Whether it is one without attention pooling: blocks of such names, no norm behind."""
    listed = [*keys]
    blocks = re.compile(rf"(.*\.)?{open_clip.KEY}")
    behind = any(re.fullmatch(r"(.*\.)?ln_post\.weight", key) for key in listed)
    return not behind and any(map(blocks.fullmatch, listed))


def take(weights: Weights, config: Mapping[str, Any], source: str) -> Taken:
    """The model under timm's names, its projection as the head.

    Raises:
        InputError: It has what these towers have not.
    """
    parts, notes, unknown = open_clip.tower(weights, _TABLE, source)
    parts, notes = projection(parted(weights, parts), notes)
    return Taken(parts, {}, notes, unknown)
