"""Meta's Perception Encoder (facebookresearch/perception_models), a model of timm's `Eva`.

Its image tower has the names of open_clip's, and rotary positions that its weights do not show: its
name has to be stated. It is told by its attention pooling, or where no norm stands behind blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ltmp_export.backbones.vit.libraries.hugging_face_siglip import parted
from ltmp_export.backbones.vit.libraries.open_clip import KEY as _TRANSFORMER
from ltmp_export.backbones.vit.libraries.parts import (
    Taken,
    Weights,
    batched,
    projection,
    transposed,
)
from ltmp_export.backbones.vit.libraries.table import Table, named

NAME = "Meta's Perception Encoder"
KEY = r"attn_pool\.probe"
FIRST = r"(?:visual\.)?conv1"

_VISUAL = "visual."
_TABLE = Table(
    "transformer.resblocks.",
    {
        "class_embedding": "cls_token",
        "positional_embedding": "pos_embed",
        "conv1": "patch_embed.proj",
        "ln_pre": "norm_pre",
        "ln_post": "norm",
        "proj": "head.weight",
        "attn_pool.probe": "attn_pool.latent",
        "attn_pool.layernorm": "attn_pool.norm",
        "attn_pool.mlp.c_fc": "attn_pool.mlp.fc1",
        "attn_pool.mlp.c_proj": "attn_pool.mlp.fc2",
        "attn_pool.attn.out_proj": "attn_pool.proj",
        "attn_pool.attn.in_proj_weight": "attn_pool.in_proj.weight",
        "attn_pool.attn.in_proj_bias": "attn_pool.in_proj.bias",
    },
    {
        "ln_1": "norm1",
        "ln_2": "norm2",
        "ls_1.gamma": "gamma_1",
        "ls_2.gamma": "gamma_2",
        "attn.in_proj_weight": "attn.qkv.weight",
        "attn.in_proj_bias": "attn.qkv.bias",
        "attn.out_proj": "attn.proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    },
    prefixes=(_VISUAL,),
)


def tells(keys: Iterable[str]) -> bool:
    """Whether it is one without attention pooling: blocks of such names, no norm behind."""
    listed = [*keys]
    blocks = re.compile(rf"(.*\.)?{_TRANSFORMER}")
    behind = any(re.fullmatch(r"(.*\.)?ln_post\.weight", key) for key in listed)
    return not behind and any(map(blocks.fullmatch, listed))


def take(weights: Weights, config: Mapping[str, Any], source: str) -> Taken:
    """The model under timm's names, its projection as the head.

    Raises:
        InputError: It has what these towers have not.
    """
    whole = any(key.startswith(_VISUAL) for key in weights)
    own = {key: v for key, v in weights.items() if key.startswith(_VISUAL) or not whole}
    parts, notes, unknown = named(own, _TABLE, source)
    if len(own) < len(weights):
        notes = (*notes, f"left out: {len(weights) - len(own)} tensors for texts and comparison")
    for name in parts.keys() & {"cls_token", "pos_embed"}:
        parts[name] = batched(weights, parts[name].keys[0])
    if "head.weight" in parts:
        parts["head.weight"] = transposed(weights, parts["head.weight"].keys[0])
    parts, notes = projection(parted(weights, parts), notes)
    return Taken(parts, {}, notes, unknown)
