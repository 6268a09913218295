"""MMPretrain's `VisionTransformer`, `DistilledVisionTransformer` and `DeiT3` (MMClassification's).

By the source at 00030e3: its ViT of 768 channels and 2304 in the MLP has 8 heads; no file says it.
Where `ln2` stands behind the blocks, the mean of the patches goes through it (`avg_featmap`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltmp_export.backbones.vit.libraries.parts import Taken, Weights, gated
from ltmp_export.backbones.vit.libraries.table import Table, named
from ltmp_export.errors import InputError
from ltmp_export.statements.gather import Said

NAME = "MMPretrain"
KEY = r"layers\.\d+\.ffn\.(layers\.0\.0|w12)\.weight"
FIRST = r"(?:backbone\.)?patch_embed\.projection"

_TABLE = Table(
    "layers.",
    {
        "cls_token": "cls_token",
        "dist_token": "dist_token",
        "pos_embed": "pos_embed",
        "patch_embed.projection": "patch_embed.proj",
        "pre_norm": "norm_pre",
        "ln1": "norm",
        "ln2": "fc_norm",
        "head.layers.head": "head",
        "head.layers.head_dist": "head_dist",
        "head.fc": "head",
    },
    {
        "ln1": "norm1",
        "ln2": "norm2",
        "attn.qkv": "attn.qkv",
        "attn.proj": "attn.proj",
        "attn.gamma1.weight": "ls1.gamma",
        "ffn.gamma2.weight": "ls2.gamma",
        "ffn.gamma2.scale": "ls2.gamma",
        "ffn.layers.0.0": "mlp.fc1",
        "ffn.layers.1": "mlp.fc2",
        "ffn.w12": "mlp.fc1",
        "ffn.w3": "mlp.fc2",
    },
    unused={r"data_preprocessor\..*": "which prepares pictures"},
    prefixes=("backbone.",),
)
_CODE = "the code of MMPretrain"
_SMALL = ((2304, 768), 8)  # its `small`: the first layer of the MLP, and heads


def take(weights: Weights, config: Mapping[str, Any], source: str) -> Taken:
    """The model under timm's names.

    Raises:
        InputError: It has what these classes have not.
    """
    parts, notes, unknown = named(weights, _TABLE, source)
    if "fc_norm.weight" in parts and "norm.weight" in parts:
        raise InputError(
            f"{source}: MMPretrain's ViT with a LayerNorm behind the blocks and another behind the "
            "mean (ln1, ln2), which timm has not; expected one of them (final_norm=False)"
        )
    said = {"act": Said("gelu", _CODE)}
    if any(".ffn.w12." in key for key in weights):
        said |= gated(_CODE)
    averaged = "fc_norm.weight" in parts
    said["gp"] = Said("avg" if averaged else "token", f"ln2 is {'' if averaged else 'not '}there")
    first = parts.get("blocks.0.mlp.fc1.weight")
    if first is not None and first.shape == _SMALL[0]:
        said["num_heads"] = Said(_SMALL[1], _CODE)
    return Taken(parts, said, notes, unknown)
