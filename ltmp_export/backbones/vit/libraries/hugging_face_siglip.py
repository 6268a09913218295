"""The image half of Hugging Face's SigLIP (SigLIP 2 of a fixed size is of the same class).

SiglipVisionModel            attention pooling (`pooler_output`), features
SiglipModel                  the same; what is for texts is left out
SiglipForImageClassification classifier on the mean of the tokens; attention pooling is left out
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltmp_export.backbones.vit.libraries.hugging_face import Defaults, words
from ltmp_export.backbones.vit.libraries.hugging_face_clip import BLOCK, JOINED, TEXTS
from ltmp_export.backbones.vit.libraries.parts import Part, Taken, Weights, batched, rows
from ltmp_export.backbones.vit.libraries.table import Table, named
from ltmp_export.errors import InputError
from ltmp_export.statements.gather import Said

NAME = "Hugging Face's SigLIP"
TYPES = ("siglip", "siglip_vision_model", "siglip2", "siglip2_vision_model")
KEY = r"post_layernorm\.weight"  # CLIP, which has it too, is told before
FIRST = r"(?:vision_model\.)?embeddings\.patch_embedding"

_POOL = "head."
_TABLE = Table(
    "encoder.layers.",
    {
        "embeddings.patch_embedding": "patch_embed.proj",
        "embeddings.position_embedding.weight": "pos_embed",
        "post_layernorm": "norm",
        "classifier": "head",
        "head.probe": "attn_pool.latent",
        "head.layernorm": "attn_pool.norm",
        "head.mlp.fc1": "attn_pool.mlp.fc1",
        "head.mlp.fc2": "attn_pool.mlp.fc2",
        "head.attention.out_proj": "attn_pool.proj",
        "head.attention.in_proj_weight": "attn_pool.in_proj.weight",
        "head.attention.in_proj_bias": "attn_pool.in_proj.bias",
    },
    BLOCK,
    JOINED,
    TEXTS,
    ("vision_model.",),
)
_DEFAULTS = Defaults("SigLIP", "gelu_tanh", 1e-6)


def take(weights: Weights, config: Mapping[str, Any], source: str) -> Taken:
    """The model under timm's names.

    Raises:
        InputError: It has what these classes have not.
    """
    parts, notes, unknown = named(weights, _TABLE, source)
    patches = parts.get("patch_embed.proj.weight")
    if patches is not None and len(patches.shape) == 2:
        raise InputError(
            f"{source}: it looks like a SigLIP 2 of images of any size (NaFlex: {patches.keys[0]} "
            f"is a matrix); expected one of a fixed size, like google/siglip2-base-patch16-224"
        )
    said = words(config, _DEFAULTS, parts, source)
    if "pos_embed" in parts:
        parts["pos_embed"] = batched(weights, parts["pos_embed"].keys[0])
    pooling = {name: part for name, part in parts.items() if name.startswith("attn_pool.")}
    if "head.weight" in parts:
        said["gp"] = Said("avg", "the code of Hugging Face's SiglipForImageClassification")
        parts = {name: part for name, part in parts.items() if name not in pooling}
        notes = (*notes, "left out: its attention pooling, which its classifier does not see")
    elif pooling:
        said["gp"] = Said("map", "the attention pooling is there")
        parts = parted(weights, parts)
    return Taken(parts, said, notes, unknown)


def parted(weights: Weights, parts: Mapping[str, Part]) -> dict[str, Part]:
    """Its pooling with queries apart from keys and values, as timm has it."""
    found = dict(parts)
    for leaf in ("weight", "bias"):
        joined = found.pop(f"attn_pool.in_proj.{leaf}", None)
        if joined is not None:
            (key,) = joined.keys
            found[f"attn_pool.q.{leaf}"] = rows(weights, key, 0, 1 / 3)
            found[f"attn_pool.kv.{leaf}"] = rows(weights, key, 1 / 3, 1)
    return found
