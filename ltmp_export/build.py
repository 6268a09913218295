"""From weights to their timm model: geometry from shapes, the rest from the name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ltmp_export import features, positions, vit_pytorch
from ltmp_export.errors import InputError
from ltmp_export.positions import Grid
from ltmp_export.suggestions import did_you_mean
from ltmp_export.timm_vit import describe
from ltmp_export.vit import Vit

Weights = Mapping[str, torch.Tensor]

_BUILD_ERRORS = (TypeError, ValueError, RuntimeError, AssertionError, AttributeError, KeyError)


@dataclass(frozen=True)
class BuiltVit:
    """A timm model that holds the checkpoint's weights.

    Attributes:
        model: In eval mode.
        vit: Its geometry.
        notes: What was assumed to build it.
        warnings: What was changed to build it.
    """

    model: VisionTransformer
    vit: Vit
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def build(
    weights: Weights,
    name: str | None,
    *,
    source: str = "the checkpoint",
    heads: int | None = None,
    image_size: tuple[int, int] | None = None,
    stored_size: tuple[int, int] | None = None,
    pool: str | None = None,
) -> BuiltVit:
    """Build the timm model these weights belong to and load them, every key matched.

    Args:
        weights: timm names, no prefix, no thresholds, no weights of a token-reduction method.
        name: timm name from the checkpoint or the user; unknown names leave only the shapes.
        source: Where the weights come from, for messages.
        heads: Number of heads as stated by the user.
        image_size: (height, width) as stated by the user; the position embedding is resized to it.
        stored_size: (height, width) as stated by the checkpoint.
        pool: timm's `global_pool` as stated by the checkpoint.

    Raises:
        InputError: Not a plain ViT, shapes contradict the name, something must be stated, or the
            model has a feature that is not supported (the message names it).
    """
    _require_plain_vit(weights, source)
    known = name is not None and timm.is_model(name.split(".")[0])
    grid = positions.grid(weights, (stored_size, _named_size(name) if known else None), image_size)
    other = None if image_size == stored_size else image_size
    weights, warnings = positions.resized(weights, grid, other)
    shape = _kwargs_from_shapes(weights, grid, image_size or stored_size)
    notes = []
    if heads is not None:
        _require_heads(weights, heads)
    if known and name is not None:
        notes += _departures(name, shape)
        model = _create(name, _overrides(shape, weights, pool, heads))
    else:
        if (image_size or stored_size) is None and grid.prefix < positions.prefix_tokens(weights):
            height, width = shape["img_size"]
            notes.append(f"images {height}x{width} without position embedding of the class token")
        model, assumed = _unnamed(weights, shape, pool, heads)
        notes += assumed
    if "dist_token" in weights and not grid.prefix:  # timm's model has rows for it in any case
        model.pos_embed = nn.Parameter(torch.empty_like(weights["pos_embed"], device="meta"))
    _load(model, weights, name, source)
    model.eval().requires_grad_(False)
    vit = describe(model, name or "vit")
    return BuiltVit(model, vit, tuple(notes), warnings)


def _named_size(name: str | None) -> tuple[int, int] | None:
    """(height, width) of the images that timm knows for this name."""
    try:
        config = timm.get_pretrained_cfg(name or "")
    except RuntimeError:  # no such pretrained tag
        return None
    return None if config is None else (config.input_size[1], config.input_size[2])


def did_you_mean_model(name: str) -> str:
    """'; did you mean …?' for the timm name of a ViT, or nothing."""
    return did_you_mean(name, timm.list_models(["vit*", "deit*"]), cutoff=0.4)


def _require_plain_vit(weights: Weights, source: str) -> None:
    """The keys without which nothing can be told."""
    features.require_plain(source, weights)
    _require_ranks(weights)


def _kwargs_from_shapes(
    weights: Weights, grid: Grid, image_size: tuple[int, int] | None
) -> dict[str, Any]:
    """The `VisionTransformer` arguments that names and shapes determine."""
    width, in_chans, *patch = weights["patch_embed.proj.weight"].shape
    block = {k.removeprefix("blocks.0.") for k in weights if k.startswith("blocks.0.")}
    hidden = weights["blocks.0.mlp.fc1.weight"].shape[0]
    return {
        "img_size": image_size or grid.image_size,
        "patch_size": tuple(patch),
        "in_chans": in_chans,
        "num_classes": weights["head.weight"].shape[0],
        "embed_dim": width,
        "depth": features.block_count(weights),
        "mlp_ratio": (hidden + 0.5) / width,  # timm truncates the product: land inside the integer
        "qkv_bias": "attn.qkv.bias" in block,
        "proj_bias": "attn.proj.bias" in block,
        "qk_norm": "attn.q_norm.weight" in block,
        "scale_attn_norm": "attn.norm.weight" in block,
        "scale_mlp_norm": "mlp.norm.weight" in block,
        "init_values": 1e-5 if "ls1.gamma" in block else None,
        "no_embed_class": not grid.prefix,
        "pre_norm": "norm_pre.weight" in weights,
    }


def _require_ranks(weights: Weights) -> None:
    ranks = {"patch_embed.proj.weight": 4, "pos_embed": 3, "head.weight": 2}
    ranks |= {"blocks.0.attn.qkv.weight": 2, "blocks.0.mlp.fc1.weight": 2}
    optional = {"cls_token": 3, "dist_token": 3, "blocks.0.attn.q_norm.weight": 1}
    ranks |= {key: rank for key, rank in optional.items() if key in weights}
    for key, rank in ranks.items():
        shape = tuple(weights[key].shape) if key in weights else None
        if shape is None or len(shape) != rank or 0 in shape:
            raise InputError(f"{key} has shape {shape}; a timm ViT has {rank} non-empty dimensions")
    copies, rows = len(weights["pos_embed"]), len(weights["blocks.0.attn.qkv.weight"])
    if copies != 1:
        raise InputError(f"pos_embed is of {copies} images; expected 1")
    if rows % 3:
        raise InputError(f"blocks.0.attn.qkv.weight has {rows} rows; expected a multiple of 3")


def _attention_width(weights: Weights) -> int:
    """Channels of all heads together."""
    return int(weights["blocks.0.attn.qkv.weight"].shape[0]) // 3


def _require_heads(weights: Weights, heads: int) -> None:
    width = _attention_width(weights)
    if heads < 1 or width % heads:
        raise InputError(f"--num-heads {heads} does not divide the attention width {width}")


def _heads_from_weights(weights: Weights) -> int:
    """From the norm of q if there is one, else 64 channels per head (SPEC §2)."""
    width = _attention_width(weights)
    per_head = 64
    if "blocks.0.attn.q_norm.weight" in weights:
        per_head = int(weights["blocks.0.attn.q_norm.weight"].shape[0])
    if width % per_head:
        raise InputError(
            f"the number of heads is not in the file, and width {width} is no multiple of "
            f"{per_head}; state it (--num-heads)"
        )
    return width // per_head


def _overrides(
    shape: dict[str, Any], weights: Weights, pool: str | None, heads: int | None
) -> dict[str, Any]:
    """The arguments a fine-tuned model may rightly have other than its timm name says."""
    free = ("img_size", "in_chans", "num_classes", "qk_norm", "init_values", "no_embed_class")
    chosen = {key: shape[key] for key in (*free, "depth", "patch_size", "mlp_ratio")}
    if pool is None and "fc_norm.weight" in weights:
        pool = "avg"
    if pool is not None:
        chosen |= {"global_pool": pool, "fc_norm": "fc_norm.weight" in weights}
    if heads is not None:
        chosen["num_heads"] = heads
    return chosen


def _unnamed(
    weights: Weights, shape: dict[str, Any], pool: str | None, heads: int | None
) -> tuple[nn.Module, list[str]]:
    """The model of these shapes, and what had to be assumed to build it."""
    notes = []
    width = _attention_width(weights)
    if heads is None:
        heads = _heads_from_weights(weights)
        notes.append(f"{heads} heads of {width // heads} channels")
    shape["num_heads"] = heads
    shape["fc_norm"] = "fc_norm.weight" in weights
    factory: Any = partial(vit_pytorch.model, attention_width=width)
    if vit_pytorch.NORM not in weights:
        factory = VisionTransformerDistilled if "dist_token" in weights else VisionTransformer
        if pool is None:
            pool = "avg" if shape["fc_norm"] else "token"
            notes.append(f"exact GELU, LayerNorm epsilon 1e-6, {pool} pooling")
        shape["global_pool"] = pool
    with torch.device("meta"):
        return _construct(factory, **shape), notes


def _departures(name: str, shape: dict[str, Any]) -> list[str]:
    """Where the weights are of another depth or patch size than the name says: they decide.

    Raises:
        InputError: The name is not that of a plain ViT.
    """
    named: Any = _create(name, {})
    if not isinstance(named, VisionTransformer):
        raise InputError(f"{name} is a {type(named).__name__}; expected a plain VisionTransformer")
    says = {"depth": len(named.blocks), "patch_size": tuple(named.patch_embed.patch_size)}
    return [
        f"{key} {shape[key]} as the weights have it, though {name} has {value}"
        for key, value in says.items()
        if shape[key] != value
    ]


def _create(name: str, kwargs: dict[str, Any]) -> nn.Module:
    with torch.device("meta"):
        return _construct(timm.create_model, name, pretrained=False, **kwargs)


def _construct(factory: Any, *args: Any, **kwargs: Any) -> nn.Module:
    try:
        model: nn.Module = factory(*args, **kwargs)
    except _BUILD_ERRORS as err:
        what = args[0] if args else "a ViT of these shapes"
        raise InputError(f"timm cannot build {what}: {err}") from err
    return model


def _load(model: nn.Module, weights: Weights, name: str | None, source: str) -> None:
    """Every key must be there with its shape; the model takes the tensors themselves."""
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in weights.items()}
    missing, unexpected = sorted(expected.keys() - found), sorted(found.keys() - expected)
    other = [
        f"{k} {found[k]}, expected {expected[k]}"
        for k in sorted(expected.keys() & found)
        if found[k] != expected[k]
    ]
    parts = [
        f"{len(keys)} {word} ({'; '.join(keys[:3])}{'; …' if len(keys) > 3 else ''})"
        for word, keys in (("missing", missing), ("unexpected", unexpected), ("misshapen", other))
        if keys
    ]
    if parts:
        raise InputError(
            f"{source}: the weights are not those of {name or 'a plain ViT'}: {', '.join(parts)}"
        )
    model.load_state_dict(dict(weights), assign=True)
