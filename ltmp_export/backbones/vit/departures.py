"""Weights against the model that their name stands for: what may differ, and what may not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ltmp_export.backbones.vit.facts import Facts, Named
from ltmp_export.backbones.vit.multi_scale import COARSE
from ltmp_export.errors import InputError

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
}
_FC1, _FC2 = "blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.weight"


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
        ("heads", settled.heads, model.blocks[0].attn.num_heads),
        ("images", tuple(shape["img_size"]), tuple(model.patch_embed.img_size)),
        ("patches", tuple(shape["patch_size"]), tuple(model.patch_embed.patch_size)),
        ("channels", shape["in_chans"], model.patch_embed.proj.in_channels),
        ("MLP width", weights[_FC2].shape[1], other[_FC2].shape[1]),
        ("LayerScale", _has_scale(weights), _has_scale(other)),
        ("coarse patches", "yes" if COARSE in weights else "no", "no"),
    ]
    if isinstance(model.head, nn.Linear):
        pairs.append(("classes", shape["num_classes"], model.num_classes))
    told = [f"{what} {_shown(ours)} ({_shown(its)})" for what, ours, its in pairs if ours != its]
    if not told:
        return ()
    return (f"not in all as {named.told} has it: {', '.join(told)}; the weights decide",)


def _has_scale(state: Mapping[str, torch.Tensor]) -> str:
    return "yes" if "blocks.0.ls1.gamma" in state else "no"


def _shown(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


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
    width = len(weights["patch_embed.proj.weight"])
    if width != named.model.embed_dim:
        wrong.append(f"width {width} (by name {named.model.embed_dim})")
    for feature, key in _FEATURES.items():
        ours, its = key in weights, key in other
        if ours != its:
            wrong.append(f"{'' if ours else 'no '}{feature} (by name {'one' if its else 'none'})")
    if _gated(weights) != _gated(other):
        wrong.append(f"{'a gated' if _gated(weights) else 'no gated'} MLP, unlike by name")
    if wrong:
        raise InputError(
            f"{source}: the weights are not those of {named.told}: {', '.join(wrong)}; state what "
            "they are with --model"
        )


def _gated(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether the MLP is not just two layers with an activation between them."""
    first, second = state.get(_FC1), state.get(_FC2)
    return first is None or second is None or first.shape[0] != second.shape[-1]
