"""From weights to their timm model: geometry from shapes, the rest from a name or `facts`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from timm.layers import (
    Attention,
    DiffAttention,
    GluMlp,
    HybridEmbed,
    Mlp,
    PatchEmbed,
    RmsNorm,
    SwiGLU,
)
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import (
    DiffParallelScalingBlock,
    ParallelScalingBlock,
    VisionTransformer,
)
from timm.models.vitamin import GeGluMlp, MbConvStages, VitCfg
from torch import nn

from ltmp_export.backbones.built import Built, load
from ltmp_export.backbones.vit import (
    facts,
    features,
    kinds,
    parallel_things,
    positions,
    vit_pytorch,
)
from ltmp_export.backbones.vit.class_and_mean import ClassAndMean
from ltmp_export.backbones.vit.departures import departures, require_same_model
from ltmp_export.backbones.vit.describe import describe
from ltmp_export.backbones.vit.facts import Facts, Named
from ltmp_export.backbones.vit.multi_scale import COARSE, MultiScalePatchEmbed
from ltmp_export.backbones.vit.positions import Grid
from ltmp_export.errors import InputError
from ltmp_export.plan import mlps, parallel
from ltmp_export.plan.vit import CLASS_AND_MEAN, Vit
from ltmp_export.statements import timm_names
from ltmp_export.statements.gather import Statements
from ltmp_export.statements.timm_names import TimmName

Weights = Mapping[str, torch.Tensor]

_MLPS: Mapping[str, Any] = {
    mlps.PLAIN: Mlp,
    mlps.PACKED: GluMlp,
    mlps.SPLIT: SwiGLU,
    mlps.NORMED: GeGluMlp,
}

# What `facts` settles, as arguments of `VisionTransformer`.
_ARGUMENTS = {
    "num_heads": "num_heads",
    "act": "act_layer",
    "norm_eps": "norm_layer",
    "pool": "global_pool",
}


@dataclass(frozen=True)
class BuiltVit(Built):
    """A ViT of timm's that holds the checkpoint's weights."""

    geometry: Vit

    @property
    def vit(self) -> Vit:
        """The geometry."""
        return self.geometry


def build(
    weights: Weights,
    name: str | None,
    says: Statements | None = None,
    *,
    source: str = "the checkpoint",
    timm_name: TimmName | None = None,
    where: str = "its name",
) -> BuiltVit:
    """Build the timm model these weights belong to and load them, every key matched.

    Args:
        weights: timm names, no prefix, no thresholds, no weights of a token-reduction method.
        name: What to call the model.
        says: What the file and the user say of it.
        source: Where the weights come from, for messages.
        timm_name: The model of timm's that it is, where a name tells; else only shapes do.
        where: Who calls it so.

    Raises:
        InputError: Not a plain ViT, shapes contradict the name, something must be stated, or the
            model has a feature that is not supported (the message names it).
    """
    _require_plain_vit(weights, source)
    says = says or Statements()
    named = None
    if timm_name is not None:
        named, says = _named(timm_name, where, says)
    if named is not None:
        require_same_model(weights, named, source)
    grid = _grid(weights, named, says, source)
    same = says.image_size == says.stored_size
    weights, warnings = positions.resized(weights, grid, None if same else says.image_size)
    weights = positions.as_timm(weights, grid)
    shape = _kwargs_from_shapes(weights, grid, says.image_size or says.stored_size)
    settled = facts.settle(weights, named, says, source)
    if named is not None:
        warnings += departures(weights, named, shape, settled)
        ours = {**says.arguments, **_overrides(named, shape, weights, settled)}
        model = timm_names.create(named.timm.name, **parallel_things.again(ours, settled.heads))
    else:
        included = bool(says.arguments.get("pool_include_prefix", False))
        model = _unnamed(weights, shape | {"pool_include_prefix": included}, settled)
    if "dist_token" in weights and not grid.prefix:  # timm's model has rows for it in any case
        model.pos_embed = nn.Parameter(torch.empty_like(weights["pos_embed"], device="meta"))
    counters = [key for key in model.state_dict() if re.fullmatch(kinds.COUNTER, key)]
    zero = torch.zeros((), dtype=torch.int64)
    load(model, {**weights, **dict.fromkeys(counters, zero)}, name or "a plain ViT", source)
    model.eval().requires_grad_(False)
    return BuiltVit(model, describe(model, name or "vit"), settled.answers, warnings)


def _named(name: TimmName, where: str, says: Statements) -> tuple[Named, Statements]:
    """A model by name, with the arguments that the file states for it; these, and what it needs.

    Raises:
        InputError: It is not that of a plain ViT.
    """
    model = timm_names.create(name.name, **says.arguments)
    if not isinstance(model, VisionTransformer):
        raise InputError(
            f"{name.name} is a {type(model).__name__}; expected a plain VisionTransformer"
        )
    if more := parallel_things.arguments(model):
        says = replace(says, arguments={**says.arguments, **more})
        model = timm_names.create(name.name, **says.arguments)
    return Named(name, where, model), says


def _grid(weights: Weights, named: Named | None, says: Statements, source: str) -> Grid:
    """The grid of patches, see `vit.positions.grid`."""
    unplaced = says.unplaced
    if unplaced is None and named is not None:
        unplaced = bool(named.model.no_embed_class)
    by_name = None if named is None else named.timm.image_size
    return positions.grid(
        weights,
        says.stored_size,
        says.image_size,
        usual=(says.usual_size, by_name),
        unplaced=True if says.assume_defaults and unplaced is None else unplaced,
        named=named is not None,
        cells=getattr(named and named.model.patch_embed, "feature_ratio", None),
        source=source,
    )


def _require_plain_vit(weights: Weights, source: str) -> None:
    """The keys without which nothing can be told."""
    features.require_plain(source, weights)
    _require_ranks(weights)


def _kwargs_from_shapes(
    weights: Weights, grid: Grid, image_size: tuple[int, int] | None
) -> dict[str, Any]:
    """The `VisionTransformer` arguments that names and shapes determine."""
    width, in_chans, *patch = kinds.embedding(weights)
    block = {k.removeprefix("blocks.0.") for k in weights if k.startswith("blocks.0.")}
    hidden = kinds.mlp_width(weights, 0)
    return {
        "img_size": image_size or grid.image_size,
        "patch_size": tuple(patch),
        "in_chans": in_chans,
        "num_classes": len(weights["head.weight"]) if "head.weight" in weights else 0,
        "embed_dim": width,
        "depth": features.block_count(weights),
        "mlp_ratio": (hidden + 0.5) / width,  # timm truncates the product: land inside the integer
        "qkv_bias": f"{kinds.layers(weights)[0]}.bias" in block,
        "proj_bias": f"{kinds.layers(weights)[1]}.bias" in block,
        "qk_norm": not {"attn.q_norm.weight", "q_norm.weight"}.isdisjoint(block),
        "scale_attn_norm": "attn.norm.weight" in block,
        "scale_mlp_norm": "mlp.norm.weight" in block,
        "init_values": None if {"ls1.gamma", "ls.gamma"}.isdisjoint(block) else 1e-5,
        "no_embed_class": grid.prefix < positions.prefix_tokens(weights),
        "class_token": "cls_token" in weights,
        "reg_tokens": weights["reg_token"].shape[1] if "reg_token" in weights else 0,
        "pos_embed": "learn" if "pos_embed" in weights else "none",
        "pre_norm": "norm_pre.weight" in weights,
        "embed_layer": _embedding(weights, in_chans),
        "mlp_layer": _MLPS[kinds.mlp(weights)],
        "attn_layer": _attention(block),
    } | _side_by_side(block, kinds.side_by_side(weights))


def _side_by_side(block: set[str], kind: str) -> dict[str, Any]:
    """The block that has these weights, where attention and MLP run side by side."""
    if not kind:
        return {}
    if "sub_norm.weight" in block:
        return {"block_fn": partial(DiffParallelScalingBlock, dual_lambda="lambda_a" in block)}
    return {"block_fn": partial(ParallelScalingBlock, fuse_out_proj=kind == parallel.JOINED)}


def _embedding(weights: Weights, channels: int) -> Any:
    """The patch embedding of images of so many channels that these weights tell."""
    if (told := kinds.stages(weights)) is not None:
        stages = VitCfg(told.widths, told.depths, told.first)
        backbone = MbConvStages(stages, in_chans=channels, device="meta")
        return partial(HybridEmbed, backbone=backbone, proj=False)
    return MultiScalePatchEmbed if COARSE in weights else PatchEmbed


def _attention(block: set[str]) -> Any:
    """The attention of a block that has these weights."""
    return DiffAttention if "attn.sub_norm.weight" in block else Attention


def _require_ranks(weights: Weights) -> None:
    ranks = kinds.stem_ranks(weights) or {"patch_embed.proj.weight": 4}
    ranks |= {f"blocks.0.{leaf}.weight": 2 for leaf in _entering(weights)}
    optional = dict.fromkeys(("cls_token", "dist_token", "reg_token", "pos_embed"), 3)
    optional |= {"blocks.0.attn.q_norm.weight": 1, "head.weight": 2}
    ranks |= {key: rank for key, rank in optional.items() if key in weights}
    for key, rank in ranks.items():
        shape = tuple(weights[key].shape) if key in weights else None
        if shape is None or len(shape) != rank or 0 in shape:
            raise InputError(f"{key} has shape {shape}; a timm ViT has {rank} non-empty dimensions")
    for key in ("pos_embed", "reg_token"):
        if key in weights and len(weights[key]) != 1:
            raise InputError(f"{key} is of {len(weights[key])} images; expected 1")
    if kinds.side_by_side(weights):
        if kinds.mlp_width(weights, 0) < 1:
            raise InputError(f"{kinds.IN_PROJ} has too few rows for queries, keys, values and MLP")
        return
    if (rows := len(weights["blocks.0.attn.qkv.weight"])) % 3:
        raise InputError(f"blocks.0.attn.qkv.weight has {rows} rows; expected a multiple of 3")


def _entering(weights: Weights) -> tuple[str, ...]:
    """The leaves of a block's linear layers that are given normed tokens; of an MLP the first."""
    found = kinds.layers(weights)
    return found[:1] if kinds.side_by_side(weights) else (found[0], found[2])


def _overrides(
    named: Named, shape: dict[str, Any], weights: Weights, settled: Facts
) -> dict[str, Any]:
    """The arguments a fine-tuned model may rightly have other than its timm name says."""
    free = ["img_size", "in_chans", "num_classes", "init_values", "no_embed_class", "depth"]
    free += ["embed_layer"] if COARSE in weights else []
    chosen = {key: shape[key] for key in (*free, "patch_size", "mlp_ratio")}
    chosen |= {"global_pool": settled.pool, "fc_norm": "fc_norm.weight" in weights}
    told = (key for key, one in settled.answers.items() if one.where == named.told)
    own = {_ARGUMENTS[key] for key in told if key in _ARGUMENTS}
    return chosen | {key: v for key, v in _stated(weights, settled).items() if key not in own}


def _stated(weights: Weights, settled: Facts) -> dict[str, Any]:
    """What is settled, as `VisionTransformer` takes it."""
    kind = RmsNorm if kinds.rms(weights) else nn.LayerNorm
    norm = partial(kind, eps=settled.norm_eps)
    found = {"num_heads": settled.heads, "act_layer": settled.act, "norm_layer": norm}
    return found | ({"embed_norm_layer": norm} if "patch_embed.norm.weight" in weights else {})


def _unnamed(weights: Weights, shape: dict[str, Any], settled: Facts) -> nn.Module:
    """The model of these shapes."""
    wide = kinds.attention_width(weights)
    shape |= {"num_heads": settled.heads} | kinds.norms_behind(weights)
    factory: Any = partial(vit_pytorch.model, attention_width=wide)
    own = vit_pytorch.NORM in weights
    plain = not ("dist_token" in weights or shape["qk_norm"] or shape["scale_attn_norm"])
    widened = not own and plain and wide != shape["embed_dim"]
    if not own:
        factory = VisionTransformerDistilled if "dist_token" in weights else VisionTransformer
        factory = ClassAndMean if settled.pool == CLASS_AND_MEAN else factory
        shape |= _stated(weights, settled) | {"global_pool": settled.pool}
    if shape["mlp_layer"] is GluMlp:
        shape["mlp_layer"] = partial(GluMlp, gate_last=settled.gate_last)
    try:
        with timm_names.without_numbers():
            model: nn.Module = factory(**shape | ({"num_heads": 1} if widened else {}))
            if widened:
                model = vit_pytorch.widened(model, settled.heads, wide, shape)
    except timm_names.BUILD_ERRORS as err:
        raise InputError(f"timm cannot build a ViT of these shapes: {err}") from err
    return model
