"""Meta's DINOv3 (facebookresearch/dinov3), a model of timm's `Eva`, whose name has to be stated.

Keys get no bias: its mask is 0 there. The periods of its rotary positions are computed anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltmp_export.backbones.vit.libraries.parts import Taken, Weights, rows
from ltmp_export.backbones.vit.libraries.table import Table, named

NAME = "Meta's DINOv3"
KEY = r"storage_tokens|rope_embed\.periods|blocks\.\d+\.attn\.qkv\.bias_mask"
FIRST = r"patch_embed\.proj"

_TABLE = Table(
    "blocks.",
    {
        "cls_token": "cls_token",
        "storage_tokens": "reg_token",
        "patch_embed.proj": "patch_embed.proj",
        "norm": "norm",
        "head": "head",
    },
    {
        "norm1": "norm1",
        "norm2": "norm2",
        "attn.qkv": "attn.qkv",
        "attn.proj": "attn.proj",
        "ls1.gamma": "gamma_1",
        "ls2.gamma": "gamma_2",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
        "mlp.w1": "mlp.fc1_g",
        "mlp.w2": "mlp.fc1_x",
        "mlp.w3": "mlp.fc2",
    },
    unused={
        r"rope_embed\.periods": "which are computed anew",
        r"blocks\.\d+\.attn\.qkv\.bias_mask": "which is 0 for keys and 1 else",
        r"local_cls_norm\..*": "which only pretraining uses",
        r"projectors\..*": "which only distillation uses",
    },
)
_BIAS = ".attn.qkv.bias"


def take(weights: Weights, config: Mapping[str, Any], source: str) -> Taken:
    """The model under timm's names.

    Raises:
        InputError: It has what these models have not.
    """
    parts, notes, unknown = named(weights, _TABLE, source)
    for name in [name for name in parts if name.endswith(_BIAS)]:
        (key,) = parts.pop(name).keys
        attention = name.removesuffix("qkv.bias")
        parts[f"{attention}q_bias"] = rows(weights, key, 0, 1 / 3)
        parts[f"{attention}v_bias"] = rows(weights, key, 2 / 3, 1)
    return Taken(parts, {}, notes, unknown)
