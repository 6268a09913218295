"""The image tower of OpenAI's CLIP and of open_clip, where it is open_clip's own transformer.

The projection is the head, as in timm. A file does not say the activation: OpenAI's models have
QuickGELU, most others GELU; `open_clip_config.json` beside it says it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltmp_export.backbones.vit.libraries import open_clip_config
from ltmp_export.backbones.vit.libraries.parts import (
    Taken,
    Weights,
    batched,
    projection,
    transposed,
    zeros,
)
from ltmp_export.backbones.vit.libraries.table import Named, Table, named

NAME = "open_clip"
KEY = r"transformer\.resblocks\.\d+\.attn\.in_proj_weight"
FIRST = r"(?:visual\.)?conv1"

_VISUAL = "visual."
TABLE = Table(
    "transformer.resblocks.",
    {
        "class_embedding": "cls_token",
        "positional_embedding": "pos_embed",
        "conv1": "patch_embed.proj",
        "ln_pre": "norm_pre",
        "ln_post": "norm",
        "proj": "head.weight",
    },
    {
        "ln_1": "norm1",
        "ln_2": "norm2",
        "ls_1.gamma": "ls1.gamma",
        "ls_2.gamma": "ls2.gamma",
        "attn.in_proj_weight": "attn.qkv.weight",
        "attn.in_proj_bias": "attn.qkv.bias",
        "attn.out_proj": "attn.proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    },
    prefixes=(_VISUAL,),
)


def tower(weights: Weights, table: Table, source: str) -> Named:
    """The image tower of a file, of which there may be another for texts, by a table.

    Raises:
        InputError: As of `named`.
    """
    whole = any(key.startswith(_VISUAL) for key in weights)
    own = {key: v for key, v in weights.items() if key.startswith(_VISUAL) or not whole}
    parts, notes, unknown = named(own, table, source)
    if len(own) < len(weights):
        notes = (*notes, f"left out: {len(weights) - len(own)} tensors for texts and comparison")
    for name in parts.keys() & {"cls_token", "pos_embed"}:
        parts[name] = batched(weights, parts[name].keys[0])
    if "head.weight" in parts:
        parts["head.weight"] = transposed(weights, parts["head.weight"].keys[0])
    return Named(parts, notes, unknown)


def take(weights: Weights, config: Mapping[str, Any], source: str) -> Taken:
    """The model under timm's names.

    Raises:
        InputError: It has what open_clip's plain tower has not.
    """
    parts, notes, unknown = tower(weights, TABLE, source)
    if "norm_pre.weight" not in parts and "patch_embed.proj.weight" in parts:
        parts["patch_embed.proj.bias"] = zeros(*parts["patch_embed.proj.weight"].shape[:1])
    said = open_clip_config.words(config, parts, source, own_transformer=True)
    if said.pop("normed_average", None) is not None:
        parts = {_behind_the_mean(name): part for name, part in parts.items()}
    parts, notes = projection(parts, notes)
    return Taken(parts, said, notes, unknown)


def _behind_the_mean(name: str) -> str:
    """The name in timm of the last norm where it stands behind the pooling."""
    return f"fc_{name}" if name.startswith("norm.") else name
