"""From weights to their Swin Transformer of timm: sizes from shapes, the rest from its name."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from timm.models.swin_transformer import get_relative_position_index
from torch import Tensor

from ltmp_export.backbones import by_name
from ltmp_export.backbones.built import Built, load
from ltmp_export.backbones.swin.describe import describe
from ltmp_export.backbones.swin.geometry import CLASSES, NAME, Swin
from ltmp_export.backbones.vit.describe import activation, norm_eps
from ltmp_export.errors import InputError
from ltmp_export.files import memory
from ltmp_export.plan.geometry import Size
from ltmp_export.statements import timm_names
from ltmp_export.statements.gather import Answer, Statements
from ltmp_export.statements.timm_names import TimmName

Weights = Mapping[str, Tensor]

_BLOCK = re.compile(r"layers\.(\d{1,3})\.blocks\.(\d{1,4})\.attn\.relative_position_bias_table")
_OLD = "layers.0.downsample.reduction.weight"  # timm's stages merge patches at their beginning
_TABLE = "layers.{}.blocks.0.attn.relative_position_bias_table"
_FC1 = "layers.{}.blocks.0.mlp.fc1.weight"
_FILTER = "timm.models.swin_transformer.checkpoint_filter_fn(state_dict, model)"


def build(
    weights: Weights,
    name: str | None,
    says: Statements | None = None,
    *,
    source: str = "the checkpoint",
    timm_name: TimmName | None = None,
    where: str = "its name",
) -> Built:
    """Build the Swin Transformer these weights belong to and load them, every key matched.

    Args:
        weights: timm names, no prefix, no weights of a token-reduction method.
        name: What to call the model.
        says: What the file and the user say of it.
        source: Where the weights come from, for messages.
        timm_name: The model of timm's that it is.
        where: Who calls it so.

    Raises:
        InputError: Nothing tells which model it is, shapes contradict its name, or the model has a
            feature that is not supported, images that would be padded among them.
    """
    says = says or Statements()
    if timm_name is None:
        raise InputError(f"{source} is {NAME}, and nothing tells which; state it with --model")
    named: Any = timm_names.create(timm_name.name)
    by_name.require_class(named, CLASSES, timm_name, called=NAME, source=source, where=where)
    _require_timms(weights, says, source)
    told = f"{timm_name.name} ({where})"
    size, size_from = by_name.image_size(named, says, told)
    shape = _arguments(weights, source)
    _require_memory(size, shape)
    model: Any = timm_names.create(timm_name.name, **shape, img_size=size)
    load(model, weights, name or NAME, source)
    _fill(model)
    model.eval().requires_grad_(False)
    geometry = describe(model, name or timm_name.name)
    answers = {
        "act": Answer(activation(named.layers[0].blocks[0].mlp.act), told),
        "norm_eps": Answer(norm_eps(named), told),
        "pool": Answer(named.global_pool, told),
        "img_size": Answer(list(size), size_from),
    }
    return Built(model, geometry, answers, _departures(geometry, describe(named, ""), told))


def _require_timms(weights: Weights, says: Statements, source: str) -> None:
    """Refuse what names tell, and statements that there is no room for."""
    if _OLD in weights:
        raise InputError(
            f"{source}: names of Microsoft's {NAME.removeprefix('a ')}, which merges patches at "
            f"the end of a stage ({_OLD}); timm renames them: {_FILTER}"
        )
    by_name.require_unsaid((says.heads, says.pool, says.act, says.norm_eps), NAME, source)


def _arguments(weights: Weights, source: str) -> dict[str, Any]:
    """What shapes tell, as arguments of timm's model.

    Raises:
        InputError: A shape can be none of a Swin Transformer's.
    """
    found: dict[int, set[int]] = {}
    for key in weights:
        if match := _BLOCK.fullmatch(key):
            found.setdefault(int(match[1]), set()).add(int(match[2]))
    depths = [len(found.get(stage, ())) for stage in range(len(found))]
    if any(found[stage] != set(range(depth)) for stage, depth in enumerate(depths) if depth):
        raise InputError(f"{source}: its stages have gaps among their blocks")
    if not all(depths):
        raise InputError(f"{source}: stages {sorted(found)} have blocks, others none")
    told = partial(by_name.shape, weights, called=NAME, source=source)
    embedding = told("patch_embed.proj.weight", 4)
    tables = [told(_TABLE.format(stage), 2) for stage in range(len(depths))]
    hidden = [told(_FC1.format(stage), 2) for stage in range(len(depths))]
    sides = [(math.isqrt(rows) + 1) // 2 for rows, _ in tables]
    for side, (rows, _) in zip(sides, tables, strict=True):
        if (2 * side - 1) ** 2 != rows:
            raise InputError(f"{source}: a table of {rows} biases is not of square windows")
    return {
        "num_classes": told("head.fc.weight", 2)[0],
        "in_chans": embedding[1],
        "patch_size": embedding[2:],
        "embed_dim": embedding[0],
        "depths": tuple(depths),
        "num_heads": tuple(heads for _, heads in tables),
        "window_size": tuple((side, side) for side in sides),
        "mlp_ratio": tuple((rows + 0.5) / columns for rows, columns in hidden),  # timm truncates
        "qkv_bias": "layers.0.blocks.0.attn.qkv.bias" in weights,
    }


def _require_memory(size: Size, shape: Mapping[str, Any]) -> None:
    """Check that one image fits: the reference holds a block's tokens, and its MLP's, in float64.

    Raises:
        InputError: It takes more than the memory limit.
    """
    (height, width), (rows, columns) = size, shape["patch_size"]
    tokens = (height // rows) * (width // columns)
    inner = shape["embed_dim"] * (3 + max(shape["mlp_ratio"]))
    memory.require_memory(int(8 * tokens * inner), f"{tokens} tokens of one image")


@torch.no_grad()
def _fill(model: Any) -> None:
    """Compute what files do not hold: timm's model was built without numbers."""
    for stage in model.layers:
        for block in stage.blocks:
            index = get_relative_position_index(*block.attn.window_size)
            block.attn.relative_position_index = index
            block.attn_mask = block.get_attn_mask(device=torch.device("cpu"), dtype=torch.float32)


def _departures(found: Swin, named: Swin, told: str) -> tuple[str, ...]:
    """How the weights rightly differ from the model of their name, said in one line."""
    pairs = {
        "images": "image_size", "patches": "patch_size", "channels": "in_chans",
        "classes": "classes", "blocks": "depths", "widths": "widths", "MLP widths": "mlp_widths",
        "heads": "heads", "windows": "windows",
    }  # fmt: skip
    both = [(what, getattr(found, one), getattr(named, one)) for what, one in pairs.items()]
    return by_name.departures(both, told, _shown)


def _shown(value: Any) -> str:
    """Sizes without brackets; windows as rows by columns."""
    if not isinstance(value, tuple):
        return str(value)
    pairs = ("x".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in value)
    return " ".join(pairs)
