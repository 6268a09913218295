"""A timm model of positions in attention, read back as its geometry."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import AttentionRope, PatchEmbed
from timm.layers.pos_embed_sincos import (
    RotaryEmbeddingCat,
    RotaryEmbeddingDinoV3,
    RotaryEmbeddingMixed,
)
from timm.models import beit, eva
from torch import Tensor, nn

from ltmp_export.backbones.beit.geometry import Beit
from ltmp_export.backbones.eva.geometry import Eva
from ltmp_export.backbones.positioned import eager
from ltmp_export.backbones.positioned.geometry import Positioned
from ltmp_export.backbones.vit import describe as vit
from ltmp_export.errors import InputError
from ltmp_export.plan import positions

_GEOMETRIES: dict[type[nn.Module], type[Positioned]] = {eva.Eva: Eva, beit.Beit: Beit}
_BLOCKS = (eva.EvaBlock, eva.EvaBlockPostNorm, beit.Block)
_ATTENTION = (eva.EvaAttention, AttentionRope, beit.Attention)
_EVEN = 16  # angles are stored in pieces of it, see `turns`
_TURNS = (RotaryEmbeddingCat, RotaryEmbeddingDinoV3, RotaryEmbeddingMixed)


def describe(model: nn.Module, name: str) -> Positioned:
    """The geometry of a timm model, refusing by name whatever the rewrite does not cover.

    Raises:
        InputError: The model has a feature that is not supported.
    """
    made = _GEOMETRIES.get(type(model))
    if made is None:
        raise InputError(f"{type(model).__name__} is not supported; expected Eva or Beit")
    timm_model: Any = model  # timm's attributes are untyped
    _refuse_features(timm_model)
    first, rope = timm_model.blocks[0], getattr(timm_model, "rope", None)
    heads = tuple(_kv_heads(block.attn) for block in timm_model.blocks)
    grouped = any(number != first.attn.num_heads for number in heads)
    prefix, latent = timm_model.num_prefix_tokens, getattr(timm_model, "attn_pool", None)
    try:
        return made(
            name=name,
            image_size=tuple(timm_model.patch_embed.img_size),
            patch_size=tuple(timm_model.patch_embed.patch_size),
            in_chans=timm_model.patch_embed.proj.in_channels,
            classes=timm_model.num_classes,
            depth=len(timm_model.blocks),
            width=timm_model.embed_dim,
            mlp_width=vit.last_layer(first.mlp).in_features,
            heads=first.attn.num_heads,
            head_width=_width(first.attn),
            norm_eps=vit.norm_eps(timm_model),
            activation=vit.activation(first.mlp.act),
            pool=timm_model.global_pool,
            prefix=prefix,
            registers=prefix - (timm_model.cls_token is not None),
            mlp=vit.mlp_kind(first.mlp),
            latent=vit.attention_pool(latent),
            pool_prefix=latent is not None,
            positions=_positions(timm_model),
            half=bool(rope is not None and first.attn.rotate_half),
            own_turns=type(rope) is RotaryEmbeddingMixed,
            apart=first.attn.qkv is None,
            kv_heads=heads if grouped else (),
            post_norm=type(first) is eva.EvaBlockPostNorm,
        )
    except ValueError as err:
        raise InputError(f"{name}: {err}: not supported in the exported form") from err


def _positions(model: Any) -> str:
    if getattr(model, "rope", None) is not None:
        return positions.ROTARY
    tables = (model.blocks[0].attn, model) if type(model) is beit.Beit else ()
    if any(getattr(one, key, None) is not None for one in tables
           for key in ("relative_position_bias_table", "rel_pos_bias")):  # fmt: skip
        return positions.RELATIVE
    return ""


def _width(attn: Any) -> int:
    """Channels of a head."""
    layer = attn.q_proj if attn.qkv is None else attn.qkv
    return int(layer.out_features // (attn.num_heads * (1 if attn.qkv is None else 3)))


def _kv_heads(attn: Any) -> int:
    return int(getattr(attn, "num_kv_heads", attn.num_heads))


def _refuse_features(model: Any) -> None:
    rope = getattr(model, "rope", None)
    first = model.blocks[0]
    kinds = (type(first), type(first.attn), vit.mlp_kind(first.mlp))
    unsupported = {
        f"{type(model.patch_embed).__name__}": type(model.patch_embed) is not PatchEmbed,
        f"{type(model.head).__name__} as head": type(model.head) not in (nn.Linear, nn.Identity),
        f"{type(rope).__name__}": rope is not None and type(rope) not in _TURNS,
        "blocks of several kinds": any(
            (type(block), type(block.attn), vit.mlp_kind(block.mlp)) != kinds
            for block in model.blocks
        ),
        type(first).__name__: type(first) not in _BLOCKS,
        type(first.attn).__name__: type(first.attn) not in _ATTENTION,
        "attention pooling of another kind": not vit.plain_pool(
            getattr(model, "attn_pool", None), model.embed_dim
        ),
        f"global_pool={model.global_pool!r}": model.global_pool not in ("token", "avg", "map"),
        "gated attention": getattr(first.attn, "gate", None) is not None,
    }
    named = [feature for feature, present in unsupported.items() if present]
    if named:
        raise InputError(f"not supported in the exported form: {', '.join(named)}")


def arrays(model: Any) -> dict[str, Tensor]:
    """What a graph needs beside the weights: sines, cosines and what angles follow from.

    By the names that `turns` has for them; of a model without rotary positions nothing.
    """
    rope = getattr(model, "rope", None)
    if rope is None:
        return {}
    own = type(rope) is RotaryEmbeddingMixed
    half = bool(model.blocks[0].attn.rotate_half)
    with torch.no_grad():
        whole = rope.get_embed()
        tables = whole if own else whole[None, None]  # [depth or 1, H or 1, patches, 2 D]
        found = {}
        for block, table in enumerate(tables):
            path = f"blocks.{block}.rope" if own else "rope"
            sin, cos = (_once(part, half) for part in table.chunk(2, -1))
            found[f"{path}.sin"] = torch.cat([sin, torch.zeros_like(sin[:, :1])], 1)
            found[f"{path}.cos"] = torch.cat([cos, torch.ones_like(cos[:, :1])], 1)
            found[f"{path}.angles"] = _angles(rope, block)
    return found


def _once(table: Tensor, half: bool) -> Tensor:
    """[..., D] of which two channels each turn together → [..., D / 2]."""
    return table[..., : table.shape[-1] // 2] if half else table[..., ::2]


def _angles(rope: Any, block: int) -> Tensor:
    """[H or 1, 3, a multiple of 16]: by how much a row and a column turn, and what is added."""
    y, x = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    start, row, column = eager.angle(rope, block, y, x).unbind(-2)  # [H or 1, D / 2] each
    found = torch.stack([row - start, column - start, start], -2).float()
    return nn.functional.pad(found, (0, -found.shape[-1] % _EVEN))
