"""The image half of Hugging Face's CLIP.

    CLIPVisionModel                 the class token behind the last LayerNorm (`pooler_output`)
    CLIPVisionModelWithProjection   its projection (`image_embeds`, not normalised) as the head
    CLIPModel                       the same; what is for texts is left out

`last_hidden_state` of transformers stands before that LayerNorm, tokens of an exported file behind
it. Of CLIPForImageClassification the classifier would take patches without any LayerNorm: refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltmp_export.backbones.vit.libraries.hugging_face import Defaults, words
from ltmp_export.backbones.vit.libraries.parts import Taken, Weights, batched, projection
from ltmp_export.backbones.vit.libraries.table import Table, named

NAME = "Hugging Face's CLIP"
TYPES = ("clip", "clip_vision_model")
KEY = r"pre_layrnorm\.weight"
FIRST = r"(?:vision_model\.)?embeddings\.patch_embedding"

BLOCK = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
JOINED = {"attn.qkv": [f"self_attn.{name}_proj" for name in "qkv"]}
TEXTS = {
    r"text_model\..*": "its half for texts",
    r"text_projection\.weight|logit_(scale|bias)": "which compares images with texts",
    r"embeddings\.position_ids": "a buffer, which nothing reads",
}
_TABLE = Table(
    "encoder.layers.",
    {
        "embeddings.class_embedding": "cls_token",
        "embeddings.patch_embedding": "patch_embed.proj",
        "embeddings.position_embedding.weight": "pos_embed",
        "pre_layrnorm": "norm_pre",
        "post_layernorm": "norm",
        "visual_projection": "head",
    },
    BLOCK,
    JOINED,
    TEXTS,
    ("vision_model.",),
)
_DEFAULTS = Defaults("CLIP", "quick_gelu", 1e-5, ("norm_eps",), patch_size=32)


def take(weights: Weights, config: Mapping[str, Any], source: str) -> Taken:
    """The model under timm's names.

    Raises:
        InputError: It has what these classes have not.
    """
    parts, notes, unknown = named(weights, _TABLE, source)
    for name in parts.keys() & {"cls_token", "pos_embed"}:
        parts[name] = batched(weights, parts[name].keys[0])
    parts, notes = projection(parts, notes)
    return Taken(parts, words(config, _DEFAULTS, parts, source), notes, unknown)
