"""A plain ViT in PyTorch, on timm's own submodules: what the reference and training have in common.

Shapes: B images, N tokens, C channels, H heads, D channels per head; `...` is [B] or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import DiffAttention
from timm.models.beit import Beit
from timm.models.beit import Block as BeitBlock
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import (
    DiffParallelScalingBlock,
    ParallelScalingBlock,
    ResPostBlock,
)
from torch import Tensor

from ltmp_export.plan.vit import CLASS_AND_MEAN


def embed(model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Images [B, channels, height, width] → tokens [B, N, C], before and after `norm_pre`."""
    patches = model.patch_embed(images)
    if isinstance(model, Beit):
        front = model.cls_token.expand(len(patches), -1, -1)
        embedded = torch.cat([front, patches], 1)
        embedded = embedded if model.pos_embed is None else embedded + model.pos_embed
        return embedded, embedded
    found = model._pos_embed(patches)
    embedded = found[0] if isinstance(found, tuple) else found
    return embedded, model.norm_pre(embedded)


def side_by_side(block: Any) -> bool:
    """Whether attention and MLP of a block, or of what attends in it, run on the same tokens."""
    return isinstance(block, (ParallelScalingBlock, DiffParallelScalingBlock))


def attends(block: Any) -> Any:
    """What attends in a block, timm's attention module: where MLP and all are one, the block."""
    return block if side_by_side(block) else block.attn


def maps(attn: Any) -> int:
    """How many maps of attention there are: two for each head where it is differential."""
    differs = isinstance(attn, (DiffAttention, DiffParallelScalingBlock))
    return int(attn.num_heads) * (2 if differs else 1)


def project(attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Normalised tokens [..., N, C] → queries, keys and values [..., H, N, D].

    Of differential attention queries and keys are of 2 · H maps, [..., 2 · H, N, D / 2]. The last
    is what the MLP is to activate where it runs side by side with attention, [..., N, inner].
    """
    if not side_by_side(attn):
        return *_projected(attn, x), None
    beside, *parts = attn.in_proj(x).split(attn.in_split, -1)
    beside = beside if attn.mlp_bias is None else beside + attn.mlp_bias
    return *_in_heads(attn, parts), beside


def _in_heads(attn: Any, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [..., N, C] in maps and heads, the first two normalised."""
    numbers = (maps(attn), maps(attn), attn.num_heads)  # of a head's two maps each
    q, k, v = (
        part.reshape(*part.shape[:-1], number, -1).transpose(-3, -2)
        for part, number in zip(parts, numbers, strict=True)
    )
    return attn.q_norm(q), attn.k_norm(k), v


def _projected(attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of an attention by itself."""
    tokens = x.shape[:-1]
    if isinstance(attn, DiffAttention):
        return _in_heads(attn, attn.qkv(x).chunk(3, -1))
    if attn.qkv is None:
        heads = (attn.num_heads, *(2 * [getattr(attn, "num_kv_heads", attn.num_heads)]))
        layers = (attn.q_proj, attn.k_proj, attn.v_proj)
        q, k, v = (
            layer(x).reshape(*tokens, number, -1).transpose(-3, -2)
            for layer, number in zip(layers, heads, strict=True)
        )
    else:
        qkv = attn.qkv(x)
        if getattr(attn, "q_bias", None) is not None:
            qkv = qkv + torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
        qkv = qkv.reshape(*tokens, 3, attn.num_heads, -1)  # [..., N, 3, H, D]
        q, k, v = qkv.movedim(-3, 0).transpose(-3, -2)
    if hasattr(attn, "q_norm"):
        q, k = attn.q_norm(q), attn.k_norm(k)
    times = q.shape[-3] // k.shape[-3]  # grouped queries: each head of keys serves several
    if times > 1:
        k, v = (part.repeat_interleave(times, -3) for part in (k, v))
    return q, k, v


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


def mix(attn: Any, weights: Tensor, v: Tensor, beside: Tensor | None = None) -> Tensor:
    """Attention [..., H, N, N] on values [..., H, N, D] → its projected output [..., N, C].

    With `beside` of `project` it is that of attention and MLP together.
    """
    if maps(attn) > attn.num_heads:
        first, second = weights[..., 0::2, :, :], weights[..., 1::2, :, :]
        mixed = (first - attn._compute_lambda() * second).to(v.dtype) @ v
        mixed = (attn.sub_norm(mixed) * (1 - attn.lambda_init)).transpose(-3, -2)
    else:
        mixed = (weights @ v).transpose(-3, -2)  # [..., N, H, D]
    joined = mixed.flatten(-2)
    if beside is not None:
        return _both(attn, joined, beside)
    out: Tensor = attn.proj(attn.norm(joined) if hasattr(attn, "norm") else joined)
    return out


def _both(block: Any, mixed: Tensor, beside: Tensor) -> Tensor:
    """What attention mixed [..., N, C] and what the MLP is to activate → their sum [..., N, C]."""
    inner = block.mlp_drop(block.mlp_act(beside))
    if block.out_proj is not None:
        whole: Tensor = block.out_proj(torch.cat([mixed, inner], -1))
        return whole
    out: Tensor = block.attn_out_proj(mixed) + block.mlp_out_proj(inner)
    return out


def unit(keys: Tensor) -> Tensor:
    """[..., N, D], each row of unit length."""
    out: Tensor = keys / keys.norm(dim=-1, keepdim=True)
    return out


def given(block: Any, half: int, x: Tensor) -> Tensor:
    """What the first or second half of a block is given of tokens [..., N, C]."""
    if isinstance(block, (EvaBlockPostNorm, ResPostBlock)):
        return x
    if side_by_side(block):
        x = block.in_norm(x)
        return x
    normed: Tensor = (block.norm1, block.norm2)[half - 1](x)
    return normed


def scaled(block: Any, half: int, update: Tensor) -> Tensor:
    """What the first or second half of a block adds to its tokens [..., N, C]."""
    if isinstance(block, (EvaBlockPostNorm, ResPostBlock)):
        normed: Tensor = (block.norm1, block.norm2)[half - 1](update)
        return normed
    if isinstance(block, (EvaBlock, BeitBlock)):
        gamma = (block.gamma_1, block.gamma_2)[half - 1]
        return update if gamma is None else gamma * update
    scales = (block.ls,) if side_by_side(block) else (block.ls1, block.ls2)
    out: Tensor = scales[half - 1](update)
    return out


def feed_forward(block: Any, x: Tensor) -> Tensor:
    """The second half of a block: tokens [..., N, C] and what its MLP makes of them.

    An MLP side by side with attention has been: the tokens stay as they are.
    """
    if side_by_side(block):
        return x
    return x + scaled(block, 2, block.mlp(given(block, 2, x)))


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
    """Normalised tokens [..., N, C] → what the head is given, [..., C]: one of them, or all.

    Of `ClassAndMean` it is one of them and the mean of the patches, [..., 2C].
    """
    if model.global_pool == "token":
        return x[..., 0, :]
    latent = getattr(model, "attn_pool", None)
    eva = isinstance(model, Eva) and latent is not None  # is given all rows
    behind = 0 if eva or getattr(model, "pool_include_prefix", False) else model.num_prefix_tokens
    if latent is not None:
        return attention_pooled(latent, x, size, behind)
    patches = size[..., behind:, None]
    mean = (x[..., behind:, :] * patches).sum(-2) / patches.sum(-2).clamp(min=1)
    return torch.cat([x[..., 0, :], mean], -1) if model.global_pool == CLASS_AND_MEAN else mean


def attention_pooled(pool: Any, x: Tensor, size: Tensor, behind: int) -> Tensor:
    """Normalised tokens [..., N, C] → [..., C], by timm's attention pooling.

    A token counts as often as the patches that it stands for: the logarithm of their number is
    added to its score (METHOD §1). Of no patch at all nothing is mixed.

    Args:
        pool: timm's module.
        x: The tokens.
        size: [..., N] patches that each token stands for, 0 for one that is not there.
        behind: Tokens in front that are left out.
    """
    heads, size = pool.num_heads, size[..., None, None, behind:]  # [..., 1, 1, N]
    kv = pool.kv(x)[..., behind:, :].unflatten(-1, (2, heads, -1))  # [..., N, 2, H, D]
    k, v = kv.movedim(-3, 0).transpose(-3, -2)
    q = pool.q_norm(pool.q(pool.latent[0]).unflatten(-1, (heads, -1)).transpose(-3, -2))
    scores = q * pool.scale @ pool.k_norm(k).mT  # [..., H, 1, N]
    there = scores.detach().masked_fill(size == 0, -torch.inf)
    highest = there.amax(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).min) if k.numel() else 0.0
    parts = (scores - highest).clamp(max=0.0).exp() * size
    weights = parts / parts.sum(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    y: Tensor = pool.proj((weights.to(v.dtype) @ v).transpose(-3, -2).flatten(-3))
    out: Tensor = y + pool.mlp(pool.norm(y))
    return out
