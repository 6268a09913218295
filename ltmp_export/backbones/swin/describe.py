"""A timm model read back as a `Swin`."""

from __future__ import annotations

from typing import Any

from timm.layers import ClassifierHead, Mlp, PatchEmbed
from timm.models.swin_transformer import (
    PatchMerging,
    SwinTransformer,
    SwinTransformerBlock,
    WindowAttention,
)
from torch import nn

from ltmp_export.backbones.swin.geometry import Swin
from ltmp_export.backbones.vit.describe import activation, norm_eps
from ltmp_export.errors import InputError


def describe(model: nn.Module, name: str) -> Swin:
    """The geometry of a timm model, refusing by name whatever the rewrite does not cover.

    Raises:
        InputError: The model has a feature that is not supported.
    """
    if type(model) is not SwinTransformer:
        raise InputError(f"{type(model).__name__} is not supported; expected SwinTransformer")
    timm_model: Any = model  # timm's attributes are untyped
    _refuse_features(timm_model)
    first = [stage.blocks[0] for stage in timm_model.layers]
    embedding = timm_model.patch_embed
    try:
        return Swin(
            name=name,
            image_size=tuple(embedding.img_size),
            patch_size=tuple(embedding.patch_size),
            in_chans=embedding.proj.in_channels,
            classes=timm_model.num_classes,
            depths=tuple(len(stage.blocks) for stage in timm_model.layers),
            widths=tuple(block.attn.dim for block in first),
            mlp_widths=tuple(block.mlp.fc1.out_features for block in first),
            heads=tuple(block.attn.num_heads for block in first),
            windows=tuple(tuple(block.window_size) for block in first),
            norm_eps=norm_eps(timm_model),
            activation=activation(first[0].mlp.act),
        )
    except ValueError as err:
        raise InputError(f"{name}: {err}, which would be padded: not supported") from err


def _refuse_features(model: Any) -> None:
    unsupported = {
        f"{type(model.patch_embed).__name__}": type(model.patch_embed) is not PatchEmbed,
        "no norm of the patch embedding": type(model.patch_embed.norm) is nn.Identity,
        f"global_pool={model.global_pool!r}": model.global_pool != "avg",
        f"{type(model.head).__name__} as head": type(model.head) is not ClassifierHead,
        "a model without classifier": type(getattr(model.head, "fc", None)) is not nn.Linear,
    }
    for stage in model.layers:
        kind = type(stage.downsample)
        unsupported[kind.__name__] = kind not in (PatchMerging, nn.Identity)
        for block in stage.blocks:
            unsupported |= _of_block(block)
    named = [feature for feature, present in unsupported.items() if present]
    if named:
        raise InputError(f"not supported in the exported form: {', '.join(named)}")


def _of_block(block: Any) -> dict[str, bool]:
    if type(block) is not SwinTransformerBlock:
        return {type(block).__name__: True}
    attn, mlp = block.attn, block.mlp
    return {
        "always_partition": block.always_partition,
        "dynamic_img_size": getattr(block, "dynamic_mask", False),
        type(attn).__name__: type(attn) is not WindowAttention,
        "heads of another width than the tokens'": attn.proj.in_features != attn.dim,
        type(mlp).__name__: type(mlp) is not Mlp,
        "a norm inside the MLP": type(getattr(mlp, "norm", nn.Identity())) is not nn.Identity,
    }
