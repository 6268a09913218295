"""Weights against the model that their name stands for: what may differ, and what may not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ltmp_export.backbones import by_name
from ltmp_export.backbones.vit import eager, kinds
from ltmp_export.backbones.vit.facts import Facts, Named
from ltmp_export.backbones.vit.multi_scale import COARSE
from ltmp_export.errors import InputError
from ltmp_export.plan import mlps

# Keys that only models with a feature have; the weights and the name must agree on each.
_FEATURES = {
    "a class token": "cls_token",
    "a distillation token": "dist_token",
    "register tokens": "reg_token",
    "a position embedding": "pos_embed",
    "a norm before the blocks (norm_pre)": "norm_pre.weight",
    "a norm of queries and keys (qk-norm)": "blocks.0.attn.q_norm.weight",
    "a norm inside attention": "blocks.0.attn.norm.weight",
    "a norm inside the MLP": "blocks.0.mlp.norm.weight",
    "a norm of the patch embedding": "patch_embed.norm.weight",
    "norms with a bias": "blocks.0.norm1.bias",
    "attention pooling": "attn_pool.latent",
    "differential attention": "blocks.0.attn.sub_norm.weight",
    "attention and MLP side by side": kinds.IN_PROJ,
    "a norm of queries and keys beside an MLP": "blocks.0.q_norm.weight",
    "differential attention beside an MLP": "blocks.0.sub_norm.weight",
    "one layer behind attention and MLP": "blocks.0.out_proj.weight",
    "a projection of patches": "patch_embed.proj.weight",
}
_MLPS = {
    mlps.PLAIN: "a plain MLP",
    mlps.PACKED: "a gated MLP in one layer",
    mlps.SPLIT: "a gated MLP of two layers",
    mlps.NORMED: "a gated MLP with a norm in front",
}


def departures(
    weights: Mapping[str, torch.Tensor],
    named: Named,
    shape: Mapping[str, Any],
    settled: Facts,
) -> tuple[str, ...]:
    """How the weights rightly differ from the model of their name, said in one line.

    Args:
        weights: timm names.
        named: The model by name.
        shape: What the shapes of the weights say, as arguments of `VisionTransformer`.
        settled: What they do not.
    """
    model, other = named.model, named.model.state_dict()
    pairs: list[tuple[str, Any, Any]] = [
        ("depth", shape["depth"], len(model.blocks)),
        ("heads", settled.heads, eager.attends(model.blocks[0]).num_heads),
        ("images", tuple(shape["img_size"]), tuple(model.patch_embed.img_size)),
        ("patches", tuple(shape["patch_size"]), tuple(model.patch_embed.patch_size)),
        ("channels", shape["in_chans"], model.in_chans),
        ("MLP width", kinds.mlp_width(weights, -1), kinds.mlp_width(other, -1)),
        ("LayerScale", _has_scale(weights), _has_scale(other)),
        ("coarse patches", "yes" if COARSE in weights else "no", "no"),
    ]
    if isinstance(model.head, nn.Linear):
        pairs.append(("classes", shape["num_classes"], model.num_classes))
    return by_name.departures(pairs, named.told)


def _has_scale(state: Mapping[str, torch.Tensor]) -> str:
    return "yes" if not {"blocks.0.ls1.gamma", "blocks.0.ls.gamma"}.isdisjoint(state) else "no"


def require_same_model(weights: Mapping[str, torch.Tensor], named: Named, source: str) -> None:
    """Check that weights can be those of their name.

    Args:
        weights: timm names.
        named: The model by name.
        source: Where they come from, for messages.

    Raises:
        InputError: They differ in what makes another model of it.
    """
    other = named.model.state_dict()
    wrong = []
    width = kinds.embedding(weights)[0]
    if width != named.model.embed_dim:
        wrong.append(f"width {width} (by name {named.model.embed_dim})")
    for feature, key in _FEATURES.items():
        has = key in weights
        if has != (key in other):
            wrong.append(f"{'' if has else 'no '}{feature} (by name {'none' if has else 'one'})")
    if (ours := kinds.mlp(weights)) != (its := kinds.mlp(other)):
        wrong.append(f"{_MLPS[ours]} (by name {_MLPS[its]})")
    if wrong:
        raise InputError(
            f"{source}: the weights are not those of {named.told}: {', '.join(wrong)}; state what "
            "they are with --model"
        )
