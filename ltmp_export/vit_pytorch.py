"""The PatchMerger of vit-pytorch (`vit_with_patch_merger.ViT`) under timm's names.

It is a ViT without class token whose embedding normalises a patch's pixels, projects them and
normalises again; after the last layer it takes the mean of all tokens. Every LayerNorm has the
epsilon 1e-5. Two writings are known, told apart by their keys:

    since 1.0   layers.i.0.to_qkv      layers.i.1.net.1       transformer.norm, mlp_head.1
    before      layers.i.0.fn.to_qkv   layers.i.1.fn.net.0    mlp_head.1 (a norm), mlp_head.2
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ltmp_export.errors import InputError

Weights = Mapping[str, torch.Tensor]

NORM = "patch_embed.norm_pre.weight"  # what tells such a model once it has timm's names
NORM_EPS = 1e-5
SAYS = "the code of vit-pytorch"  # where such a model's facts come from

_EMBEDDING = "to_patch_embedding.1.weight"
_INDEX = re.compile(r"transformer\.layers\.(0|[1-9][0-9]{0,5})\.")

# Each module's name in timm and the rank of its weight.
_Modules = dict[str, tuple[str, int]]
_OUTER: _Modules = {
    "to_patch_embedding.1": ("patch_embed.norm_pre", 1),
    "to_patch_embedding.2": ("patch_embed.proj", 2),
    "to_patch_embedding.3": ("patch_embed.norm", 1),
    "transformer.patch_merger.norm": ("cluster_layers.0.norm", 1),
}
_HEAD: _Modules = {"transformer.norm": ("norm", 1), "mlp_head.1": ("head", 2)}
_OLDER_HEAD: _Modules = {"mlp_head.1": ("fc_norm", 1), "mlp_head.2": ("head", 2)}
_LAYER: _Modules = {
    "0.norm": ("norm1", 1),
    "0.to_qkv": ("attn.qkv", 2),
    "0.to_out.0": ("attn.proj", 2),
    "1.net.0": ("norm2", 1),
    "1.net.1": ("mlp.fc1", 2),
    "1.net.4": ("mlp.fc2", 2),
}
_OLDER_LAYER: _Modules = {
    "0.norm": ("norm1", 1),
    "0.fn.to_qkv": ("attn.qkv", 2),
    "0.fn.to_out.0": ("attn.proj", 2),
    "1.norm": ("norm2", 1),
    "1.fn.net.0": ("mlp.fc1", 2),
    "1.fn.net.3": ("mlp.fc2", 2),
}


class NormedPatchEmbed(PatchEmbed):  # type: ignore[misc]  # timm is untyped
    """timm's PatchEmbed with a LayerNorm over a patch's pixels before the projection.

    `norm_pre` takes pixels in the order of the projection's weight, (channel, row, column);
    `norm` comes after the projection.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        width, *pixels = self.proj.weight.shape
        self.norm_pre = nn.LayerNorm(math.prod(pixels))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, height, width] → [B, N, C]."""
        (rows, columns), (ph, pw) = self.grid_size, self.patch_size
        x = x.reshape(len(x), self.proj.in_channels, rows, ph, columns, pw)
        x = x.permute(0, 2, 4, 1, 3, 5)  # [B, rows, columns, channels, ph, pw]
        x = x.flatten(3).flatten(1, 2)  # [B, N, channels * ph * pw]
        x = F.linear(self.norm_pre(x), self.proj.weight.flatten(1), self.proj.bias)
        normed: Tensor = self.norm(x)
        return normed


def model(*, num_heads: int, attention_width: int, **shape: Any) -> VisionTransformer:
    """Timm's ViT for these weights.

    Args:
        num_heads: H.
        attention_width: Channels of all heads together; may differ from the tokens'.
        **shape: Further arguments of `VisionTransformer`.

    Raises:
        InputError: The installed timm has no attention of that width.
    """
    width = shape["embed_dim"]
    shape |= {"class_token": False, "global_pool": "avg", "norm_layer": nn.LayerNorm}
    shape["embed_layer"] = NormedPatchEmbed
    if attention_width == width:
        return VisionTransformer(num_heads=num_heads, **shape)
    if "attn_head_dim" not in inspect.signature(Attention).parameters:
        raise InputError(
            f"attention {attention_width} channels wide in a model of {width}: the installed timm "
            "has none; update it (pip install -U timm)"
        )
    built = VisionTransformer(num_heads=1, **shape)
    for block in built.blocks:
        block.attn = Attention(
            width,
            num_heads,
            attn_head_dim=attention_width // num_heads,
            qkv_bias=shape["qkv_bias"],
            proj_bias=shape["proj_bias"],
        )
    return built


def is_vit_pytorch(keys: Collection[str]) -> bool:
    """Whether these are names of a ViT of vit-pytorch, by its embedding."""
    return _EMBEDDING in keys


def has_one_head(keys: Collection[str]) -> bool:
    """Whether there is no projection after attention: one head, as wide as the tokens."""
    return not any(".to_out." in key for key in keys)


def as_timm(weights: Weights, source: str = "the checkpoint") -> dict[str, Tensor]:
    """The weights under timm's names, the merger's as `cluster_layers.0.*`.

    Pixels of a patch go from the order (row, column, channel) to (channel, row, column); the
    position embedding loses its last row, which nothing uses; where one head is as wide as the
    tokens, an identity stands for the projection that it has not.

    Args:
        weights: As `is_vit_pytorch` tells them, no prefix.
        source: Where they come from, for messages.

    Raises:
        InputError: Keys are missing or unknown, or a shape fits no model of this kind.
    """
    expected = _expected(weights, source)
    _require_keys(weights, expected, source)
    for key, (_, rank) in expected.items():
        shape = tuple(weights[key].shape)
        if len(shape) != rank or 0 in shape:
            raise InputError(f"{source}: {key} has shape {shape}; expected {rank} dimensions")
    named = {name: weights[key] for key, (name, _) in expected.items()}
    _reorder_pixels(named, source)
    rows = named["pos_embed"].shape[1]
    if rows < 2:
        raise InputError(f"{source}: pos_embedding has {rows} row; expected one more than patches")
    named["pos_embed"] = named["pos_embed"][:, :-1].clone()
    if has_one_head(weights):
        _add_projections(named, source)
    return named


def _expected(keys: Collection[str], source: str) -> dict[str, tuple[str, int]]:
    """For each key that must be there, timm's name and the rank."""
    modules = _OUTER | (_OLDER_HEAD if "mlp_head.2.weight" in keys else _HEAD)
    layer = _OLDER_LAYER if any(".fn." in key for key in keys) else _LAYER
    for index in range(_depth(keys, source)):
        for module, (name, rank) in layer.items():
            if name == "attn.proj" and has_one_head(keys):
                continue
            modules[f"transformer.layers.{index}.{module}"] = (f"blocks.{index}.{name}", rank)
    expected = {"pos_embedding": ("pos_embed", 3)}
    expected["transformer.patch_merger.queries"] = ("cluster_layers.0.queries", 2)
    for module, (name, rank) in modules.items():
        expected[f"{module}.weight"] = (f"{name}.weight", rank)
        if not name.endswith("attn.qkv"):
            expected[f"{module}.bias"] = (f"{name}.bias", 1)
    return expected


def _depth(keys: Collection[str], source: str) -> int:
    found = {int(match[1]) for key in keys if (match := _INDEX.match(key))}
    gap = next((index for index in range(len(found)) if index not in found), len(found))
    if not found or max(found) > gap:
        raise InputError(f"{source}: transformer.layers.{gap} has no weights")
    return len(found)


def _require_keys(weights: Weights, expected: Collection[str], source: str) -> None:
    missing = [key for key in expected if key not in weights]
    unknown = [key for key in weights if key not in expected]
    parts = [
        f"{len(keys)} {word} ({'; '.join(keys[:3])}{'; …' if len(keys) > 3 else ''})"
        for word, keys in (("missing", missing), ("unexpected", unknown))
        if keys
    ]
    if parts:
        raise InputError(
            f"{source} has names of vit-pytorch, but only its PatchMerger is supported "
            f"(vit_with_patch_merger.ViT): {', '.join(parts)}"
        )


def _reorder_pixels(named: dict[str, Tensor], source: str) -> None:
    """The embedding's first norm and its projection, in timm's order of pixels and rank."""
    weight, bias = named[NORM], named["patch_embed.norm_pre.bias"]
    proj = named["patch_embed.proj.weight"]
    pixels = len(weight)
    if len(bias) != pixels or proj.shape[1] != pixels:
        raise InputError(
            f"{source}: to_patch_embedding contradicts itself: norms of {pixels} and {len(bias)} "
            f"pixels, a projection of {proj.shape[1]}"
        )
    channels, side = _patch(pixels, source)
    order = torch.arange(pixels).reshape(side, side, channels).permute(2, 0, 1).flatten()
    named[NORM], named["patch_embed.norm_pre.bias"] = weight[order], bias[order]
    named["patch_embed.proj.weight"] = proj[:, order].reshape(-1, channels, side, side)


def _patch(pixels: int, source: str) -> tuple[int, int]:
    """Channels and side of a square patch."""
    for channels in (3, 1):
        side = math.isqrt(pixels // channels)
        if channels * side * side == pixels:
            return channels, side
    raise InputError(
        f"{source}: a patch has {pixels} numbers (to_patch_embedding.1.weight); supported are "
        "square patches of 3 channels or 1"
    )


def _add_projections(named: dict[str, Tensor], source: str) -> None:
    for key in [key for key in named if key.endswith("attn.qkv.weight")]:
        rows, width = named[key].shape
        block = key.removesuffix(".attn.qkv.weight")
        if rows != 3 * width:
            raise InputError(
                f"{source}: no projection after attention (to_out.0), which only a single head as "
                f"wide as the tokens goes without; the queries, keys and values of {block} are "
                f"{rows} wide, expected {3 * width}"
            )
        named[f"{block}.attn.proj.weight"] = torch.eye(width)
        named[f"{block}.attn.proj.bias"] = torch.zeros(width)
