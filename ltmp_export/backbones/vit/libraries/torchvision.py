"""torchvision's `VisionTransformer` (`vit_b_16` and kin)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltmp_export.backbones.vit.libraries.parts import Taken, Weights
from ltmp_export.backbones.vit.libraries.table import Table, named
from ltmp_export.statements.gather import Said

NAME = "torchvision"
KEY = r"encoder\.layers\.encoder_layer_\d+\.self_attention\.in_proj_weight"
FIRST = r"conv_proj"

_TABLE = Table(
    "encoder.layers.encoder_layer_",
    {
        "class_token": "cls_token",
        "encoder.pos_embedding": "pos_embed",
        "conv_proj": "patch_embed.proj",
        "encoder.ln": "norm",
        "heads.head": "head",
    },
    {
        "ln_1": "norm1",
        "ln_2": "norm2",
        "self_attention.in_proj_weight": "attn.qkv.weight",
        "self_attention.in_proj_bias": "attn.qkv.bias",
        "self_attention.out_proj": "attn.proj",
        # Since version 0.12 an MLP, before that layers by name.
        "mlp.0": "mlp.fc1",
        "mlp.3": "mlp.fc2",
        "mlp.linear_1": "mlp.fc1",
        "mlp.linear_2": "mlp.fc2",
    },
)
_CODE = "the code of torchvision"


def take(weights: Weights, config: Mapping[str, Any], source: str) -> Taken:
    """The model under timm's names.

    Raises:
        InputError: It has what this class has not.
    """
    parts, notes, unknown = named(weights, _TABLE, source)
    said = {"act": Said("gelu", _CODE), "norm_eps": Said(1e-6, _CODE), "gp": Said("token", _CODE)}
    return Taken(parts, said, notes, unknown)
