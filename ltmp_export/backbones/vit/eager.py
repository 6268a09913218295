"""A plain ViT in PyTorch, on timm's own submodules: what the reference and training have in common.

Shapes: B images, N tokens, C channels, H heads, D channels per head; `...` is [B] or nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor


def embed(model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Images [B, channels, height, width] → tokens [B, N, C], before and after `norm_pre`."""
    embedded: Tensor = model._pos_embed(model.patch_embed(images))
    return embedded, model.norm_pre(embedded)


def project(attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised tokens [..., N, C] → queries, keys and values [..., H, N, D]."""
    tokens = x.shape[:-1]
    qkv = attn.qkv(x).reshape(*tokens, 3, attn.num_heads, -1)  # [..., N, 3, H, D]
    q, k, v = qkv.movedim(-3, 0).transpose(-3, -2)
    return attn.q_norm(q), attn.k_norm(k), v


def scores(attn: Any, q: Tensor, k: Tensor, size: Tensor) -> Tensor:
    """[..., H, N, N] before the softmax: proportional attention (arXiv 2210.09461, METHOD §1).

    Args:
        attn: timm's attention module.
        q: [..., H, N, D] queries.
        k: [..., H, N, D] keys.
        size: [..., N] patches that each token stands for.
    """
    out: Tensor = q * attn.scale @ k.mT + size.log()[..., None, None, :]
    return out


def mix(attn: Any, weights: Tensor, v: Tensor) -> Tensor:
    """Attention [..., H, N, N] on values [..., H, N, D] → its projected output [..., N, C]."""
    mixed = (weights @ v).transpose(-3, -2)  # [..., N, H, D]
    out: Tensor = attn.proj(attn.norm(mixed.flatten(-2)))
    return out


def unit(keys: Tensor) -> Tensor:
    """[..., N, D], each row of unit length."""
    out: Tensor = keys / keys.norm(dim=-1, keepdim=True)
    return out


def feed_forward(block: Any, x: Tensor) -> Tensor:
    """The second half of a block: tokens [..., N, C] and what its MLP makes of them."""
    out: Tensor = x + block.ls2(block.mlp(block.norm2(x)))
    return out


def classify(model: Any, x: Tensor, size: Tensor) -> Tensor:
    """Tokens [..., N, C] behind the last block → logits [..., classes].

    Of a distilled model these are the mean of two heads' on their own tokens. Average pooling
    weighs a token by the patches that it stands for; of no patch it is 0.

    Args:
        model: timm's model.
        x: The tokens.
        size: [..., N] patches that each token stands for, 0 for one that is not there.
    """
    if isinstance(model, VisionTransformerDistilled):
        x = model.norm(x)
        mean: Tensor = torch.stack([model.head(x[..., 0, :]), model.head_dist(x[..., 1, :])]).mean(
            0
        )
        return mean
    logits: Tensor = model.head(features(model, x, size))
    return logits


def features(model: Any, x: Tensor, size: Tensor) -> Tensor:
    """Tokens [..., N, C] behind the last block → what a classifier is given [..., C].

    That is timm's `forward_head(…, pre_logits=True)`; arguments as of `classify`.
    """
    x = model.norm(x)
    if isinstance(model, VisionTransformerDistilled):
        return x[..., :2, :].mean(-2)
    pre_logits: Tensor = model.fc_norm(pooled(model, x, size))
    return pre_logits


def pooled(model: Any, x: Tensor, size: Tensor) -> Tensor:
    """Normalised tokens [..., N, C] → the class token, or the average over patches, [..., C]."""
    if model.global_pool == "token":
        return x[..., 0, :]
    behind = model.num_prefix_tokens
    patches = size[..., behind:, None]
    return (x[..., behind:, :] * patches).sum(-2) / patches.sum(-2).clamp(min=1)
