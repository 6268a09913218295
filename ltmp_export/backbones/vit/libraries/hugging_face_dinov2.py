"""Hugging Face's Dinov2 and Dinov2WithRegisters.

    Dinov2ForImageClassification   classifier on [class token, mean of the patches]
    Dinov2Model                    the class token behind the last LayerNorm, features

Of a model with registers the class token gets its position added, as timm's has it. transformers
resizes positions without antialiasing; here they are resized as timm's model has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ltmp_export.backbones.vit.libraries.hugging_face import Defaults, words
from ltmp_export.backbones.vit.libraries.parts import Taken, Weights, gated, without_class_position
from ltmp_export.backbones.vit.libraries.table import Table, named
from ltmp_export.statements.gather import Said

NAME = "Hugging Face's Dinov2"
TYPES = ("dinov2", "dinov2_with_registers")
KEY = r"encoder\.layer\.\d+\.layer_scale1\.lambda1"
FIRST = r"(?:dinov2(?:_with_registers)?\.)?embeddings\.patch_embeddings\.projection"

_TABLE = Table(
    "encoder.layer.",
    {
        "embeddings.cls_token": "cls_token",
        "embeddings.register_tokens": "reg_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "layernorm": "norm",
        "classifier": "head",
    },
    {
        "norm1": "norm1",
        "norm2": "norm2",
        "layer_scale1.lambda1": "ls1.gamma",
        "layer_scale2.lambda1": "ls2.gamma",
        "attention.output.dense": "attn.proj",
        "attention.o_proj": "attn.proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
        "mlp.weights_in": "mlp.fc1",
        "mlp.weights_out": "mlp.fc2",
        "mlp.down_proj": "mlp.fc2",
    },
    {
        "attn.qkv": [f"attention.attention.{name}" for name in ("query", "key", "value")],
        "mlp.fc1": ["mlp.gate_proj", "mlp.up_proj"],
    },
    {r"embeddings\.mask_token": "which only pretraining uses"},
    ("dinov2_with_registers.", "dinov2."),
)
_IN_MEMORY = {"attn.qkv": [f"attention.{name}_proj" for name in "qkv"]}
_REGISTERS = "dinov2_with_registers"
_DEFAULTS = Defaults("Dinov2", "gelu", 1e-6, patch_size=14, mlp="")


def take(weights: Weights, config: Mapping[str, Any], source: str) -> Taken:
    """The model under timm's names.

    Raises:
        InputError: It has what these classes have not.
    """
    table = _TABLE
    if not any(".attention.attention." in key for key in weights):
        table = replace(table, joined={**table.joined, **_IN_MEMORY})
    parts, notes, unknown = named(weights, table, source)
    patch = 16 if config.get("model_type") == _REGISTERS else _DEFAULTS.patch_size
    said = words(config, replace(_DEFAULTS, patch_size=patch), parts, source)
    if any(".mlp.weights_in." in key or ".mlp.gate_proj." in key for key in weights):
        said |= gated("the code of Hugging Face's Dinov2")  # whatever hidden_act is
    if {"reg_token", "cls_token", "pos_embed"} <= parts.keys():
        token, positions = parts["cls_token"].keys[0], parts["pos_embed"].keys[0]
        placed = without_class_position(weights, token, positions)
        parts["cls_token"], parts["pos_embed"] = placed
        said["no_embed_class"] = Said(True, "the positions of its patches alone")
    return Taken(parts, said, notes, unknown)
