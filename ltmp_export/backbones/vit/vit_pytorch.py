"""The PatchMerger of vit-pytorch (`vit_with_patch_merger.ViT`) under timm's names.

It is a ViT without class token whose embedding normalises a patch's pixels, projects them and
normalises again; after the last layer it takes the mean of all tokens. Every LayerNorm has the
epsilon 1e-5. Its names are in `vit_pytorch_keys`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ltmp_export.backbones.vit.vit_pytorch_keys import NORM, expected, has_one_head, is_vit_pytorch
from ltmp_export.errors import InputError

__all__ = ["NORM", "NormedPatchEmbed", "as_timm", "has_one_head", "is_vit_pytorch", "model"]

Weights = Mapping[str, torch.Tensor]


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
    return widened(VisionTransformer(num_heads=1, **shape), num_heads, attention_width, shape)


def widened(
    built: VisionTransformer, num_heads: int, attention_width: int, shape: Mapping[str, Any]
) -> VisionTransformer:
    """A ViT whose attention has a width of its own, which may be another than its tokens'.

    Args:
        built: Timm's ViT, whose attention is replaced.
        num_heads: H.
        attention_width: Channels of all heads together.
        shape: The arguments it was built with.

    Raises:
        InputError: The installed timm has no attention of that width.
    """
    width = shape["embed_dim"]
    if "attn_head_dim" not in inspect.signature(Attention).parameters:
        raise InputError(
            f"attention {attention_width} channels wide in a model of {width}: the installed timm "
            "has none; update it (pip install -U timm)"
        )
    for block in built.blocks:
        block.attn = Attention(
            width,
            num_heads,
            attn_head_dim=attention_width // num_heads,
            qkv_bias=shape["qkv_bias"],
            proj_bias=shape["proj_bias"],
        )
    return built


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
    keys = expected(weights, source)
    for key, (_, rank) in keys.items():
        shape = tuple(weights[key].shape)
        if len(shape) != rank or 0 in shape:
            raise InputError(f"{source}: {key} has shape {shape}; expected {rank} dimensions")
    named = {name: weights[key] for key, (name, _) in keys.items()}
    _reorder_pixels(named, source)
    rows = named["pos_embed"].shape[1]
    if rows < 2:
        raise InputError(f"{source}: pos_embedding has {rows} row; expected one more than patches")
    named["pos_embed"] = named["pos_embed"][:, :-1].clone()
    if has_one_head(weights):
        _add_projections(named, source)
    return named


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
