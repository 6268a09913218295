"""Hugging Face's ViT, DeiT, ViTMAE and ViTMSN.

    ViTForImageClassification              classifier on the class token
    DeiTForImageClassification             the same; the distillation token attends, and is not read
    DeiTForImageClassificationWithTeacher  the mean of both classifiers
    ViTModel, DeiTModel, …                 the class token behind the last LayerNorm, features

The pooler of a bare model (a dense layer and tanh) and decoders are left out. Files have the names
of `encoder.layer`; a state_dict of transformers 5 those of `layers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltmp_export.backbones.vit.libraries.hugging_face import Defaults, words
from ltmp_export.backbones.vit.libraries.parts import Taken, Weights
from ltmp_export.backbones.vit.libraries.table import Table, named

NAME = "Hugging Face's ViT"
TYPES = ("vit", "deit", "vit_mae", "vit_msn")
KEY = r"(encoder\.layer|layers)\.\d+\.layernorm_before\.weight"
FIRST = r"(?:(?:vit|deit)\.)?embeddings\.patch_embeddings\.projection"

_OUTER = {
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
    "classifier": "head",
    "cls_classifier": "head",
    "distillation_classifier": "head_dist",
}
_PREFIXES = ("vit.", "deit.")
_UNUSED = {
    r"pooler\..*": "the pooler (a dense layer and tanh): features are the class token",
    r"embeddings\.mask_token": "which only pretraining uses",
    r"decoder\..*": "the decoder, which only pretraining uses",
}
_FILES = Table(
    "encoder.layer.",
    _OUTER,
    {
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.output.dense": "attn.proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    },
    {"attn.qkv": [f"attention.attention.{name}" for name in ("query", "key", "value")]},
    _UNUSED,
    _PREFIXES,
)
_MODULES = Table(
    "layers.",
    _OUTER,
    {
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.o_proj": "attn.proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    },
    {"attn.qkv": [f"attention.{name}_proj" for name in "qkv"]},
    _UNUSED,
    _PREFIXES,
)
_DEFAULTS = Defaults("ViT", "gelu", 1e-12)
_MSN = Defaults("ViTMSN", "gelu", 1e-6)


def take(weights: Weights, config: Mapping[str, Any], source: str) -> Taken:
    """The model under timm's names.

    Raises:
        InputError: It has what these classes have not.
    """
    table = _FILES if any(".layer." in key for key in weights) else _MODULES
    parts, notes, unknown = named(weights, table, source)
    if "dist_token" in parts and "head_dist.weight" not in parts:
        parts["reg_token"] = parts.pop("dist_token")  # it attends, and nothing reads it
        notes = (*notes, "its distillation token attends, and nothing reads it: a register")
    defaults = _MSN if config.get("model_type") == "vit_msn" else _DEFAULTS
    return Taken(parts, words(config, defaults, parts, source), notes, unknown)
