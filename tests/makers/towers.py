"""Small random image towers of vision-language models under each library's names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

CLIP, SIGLIP, SIGLIP_HF = "open_clip", "timm's SigLIP", "Hugging Face's SigLIP"
CLIP_HF = "Hugging Face's CLIP"
ACTIVATIONS = {
    CLIP: "quick_gelu",
    SIGLIP: "gelu",
    SIGLIP_HF: "gelu_tanh",
    CLIP_HF: "quick_gelu",
}


def tower(layout: str, depth: int = 3, side: int = 20, seed: int = 0) -> dict[str, Tensor]:
    """Weights by timm's names: patches of 4 pixels, width 32, two heads."""
    clip = layout in (CLIP, CLIP_HF)
    sort: dict[str, Any] = {"global_pool": "map", "class_token": False, "num_classes": 0}
    if clip:
        sort = {"pre_norm": True, "num_classes": 12 if layout == CLIP else 0}
    torch.manual_seed(seed)
    model = VisionTransformer(
        side, 4, embed_dim=32, depth=depth, num_heads=2, mlp_ratio=2.0,
        norm_layer=partial(nn.LayerNorm, eps=1e-5 if clip else 1e-6), **sort,
    )  # fmt: skip
    weights: dict[str, Tensor] = dict(model.state_dict())
    generator = torch.Generator().manual_seed(seed)
    for name, value in weights.items():
        scale = value.shape[-1] ** -0.5 if value.ndim == 2 else 0.3
        drawn = torch.randn(value.shape, generator=generator) * scale
        weights[name] = drawn + ("norm" in name and name.endswith("weight"))
    for name in ("blocks", "attn_pool"):
        for key in [key for key in weights if key.startswith(name) and "qkv.weight" in key]:
            weights[key][:64] *= 1.8
    return weights


def renamed(
    weights: dict[str, Tensor], layout: str, thresholds: Sequence[float]
) -> dict[str, Tensor]:
    """The same by the names of a library, with a threshold in each block, if there are any."""
    found = {CLIP: _open_clip, SIGLIP: _trunk, SIGLIP_HF: _hugging_face, CLIP_HF: _hugging_face}
    made = found[layout](weights)
    block = {CLIP: "visual.transformer.resblocks", SIGLIP: "visual.trunk.blocks"}.get(
        layout, "vision_model.encoder.layers"
    )
    made |= {f"{block}.{i}.threshold": torch.tensor(value) for i, value in enumerate(thresholds)}
    return made


def saved(path: Path, weights: dict[str, Tensor]) -> Path:
    """As DyMU's code saves it."""
    torch.save({"name": "tower", "state_dict": weights}, path)
    return path


def _trunk(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"visual.trunk.{name}": value for name, value in weights.items()}


_OPEN_CLIP = {
    "patch_embed.proj": "conv1", "norm_pre": "ln_pre", "blocks.": "transformer.resblocks.",
    "norm1": "ln_1", "norm2": "ln_2", "attn.qkv.": "attn.in_proj_", "attn.proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
}  # fmt: skip


def _replaced(name: str, pairs: dict[str, str]) -> str:
    for own, theirs in pairs.items():
        name = name.replace(own, theirs)
    return name


def _open_clip(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    rest = dict(weights)
    found = {
        "class_embedding": rest.pop("cls_token").reshape(-1),
        "positional_embedding": rest.pop("pos_embed")[0],
        "proj": rest.pop("head.weight").T.contiguous(),
        "ln_post.weight": rest.pop("norm.weight"),
        "ln_post.bias": rest.pop("norm.bias"),
    }
    weights["head.bias"].zero_()  # there is none
    rest.pop("head.bias")
    found |= {_replaced(name, _OPEN_CLIP): value for name, value in rest.items()}
    return {f"visual.{name}": value for name, value in found.items()}


_HUGGING_FACE = {
    "patch_embed.proj": "embeddings.patch_embedding", "norm_pre": "pre_layrnorm",
    "blocks.": "encoder.layers.", "norm1": "layer_norm1", "norm2": "layer_norm2",
    "attn.proj": "self_attn.out_proj", "attn_pool.latent": "head.probe",
    "attn_pool.proj": "head.attention.out_proj", "attn_pool.norm": "head.layernorm",
    "attn_pool.mlp": "head.mlp",
}  # fmt: skip


def _hugging_face(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    rest = dict(weights)
    found = {"embeddings.position_embedding.weight": rest.pop("pos_embed")[0]}
    if "cls_token" in rest:
        found["embeddings.class_embedding"] = rest.pop("cls_token").reshape(-1)
    for leaf in ("weight", "bias"):
        found[f"post_layernorm.{leaf}"] = rest.pop(f"norm.{leaf}")
        if "attn_pool.latent" in rest:
            both = [rest.pop(f"attn_pool.{part}.{leaf}") for part in ("q", "kv")]
            found[f"head.attention.in_proj_{leaf}"] = torch.cat(both)
    for name in [name for name in rest if ".attn.qkv." in name]:
        block, leaf = name.split(".")[1], name.rpartition(".")[2]
        for part, value in zip("qkv", rest.pop(name).chunk(3), strict=True):
            found[f"encoder.layers.{block}.self_attn.{part}_proj.{leaf}"] = value.clone()
    found |= {_replaced(name, _HUGGING_FACE): value for name, value in rest.items()}
    return {f"vision_model.{name}": value for name, value in found.items()}
