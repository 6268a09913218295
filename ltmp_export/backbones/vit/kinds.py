"""What kinds of layers a ViT of timm's has, by the names and shapes of its weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ltmp_export.plan import mlps, parallel

if TYPE_CHECKING:
    from ltmp_export.backbones.vit.features import Shaped

_MLP = "blocks.0.mlp"
IN_PROJ = "blocks.0.in_proj.weight"  # of blocks whose attention and MLP run side by side

STEM = "patch_embed.backbone."
COUNTER = r"patch_embed\.backbone\..*\.num_batches_tracked"  # of training alone


def has_stem(keys: Collection[str]) -> bool:
    """Whether convolutions stand in front of the patch embedding."""
    return any(key.startswith(STEM) for key in keys)


def embedding(weights: Mapping[str, Shaped]) -> tuple[int, int, int, int]:
    """Channels of a token and of an image, height and width of a patch: of a stem's map in cells.

    KeyError: No weight tells.
    """
    proj = weights.get("patch_embed.proj.weight")
    if not has_stem(weights):
        width, channels, height, across = weights["patch_embed.proj.weight"].shape
        return width, channels, height, across
    first = next(key for key in weights if key.startswith(STEM) and "conv" in key)
    height, across = (1, 1) if proj is None else proj.shape[2:]
    norm = f"blocks.0.{first_norm(weights)}.weight"
    return weights[norm].shape[0], weights[first].shape[1], height, across


def side_by_side(keys: Collection[str]) -> str:
    """How blocks have attention and MLP side by side, one of `plan.parallel.KINDS`."""
    if IN_PROJ not in keys:
        return ""
    return parallel.JOINED if "blocks.0.out_proj.weight" in keys else parallel.APART


def attention(keys: Collection[str]) -> str:
    """The path of what attends in block 0."""
    return parallel.attention("blocks.0", side_by_side(keys))


def first_norm(keys: Collection[str]) -> str:
    """The name in a block of its first norm."""
    return "in_norm" if side_by_side(keys) else "norm1"


def rms(keys: Collection[str]) -> bool:
    """Whether norms have no biases, as RMSNorm has none."""
    norm = f"blocks.0.{first_norm(keys)}"
    return f"{norm}.weight" in keys and f"{norm}.bias" not in keys


def attention_width(weights: Mapping[str, Shaped]) -> int:
    """Channels of all heads together."""
    if side_by_side(weights):
        return int(weights[IN_PROJ].shape[1])
    return int(weights["blocks.0.attn.qkv.weight"].shape[0]) // 3


def mlp_width(weights: Mapping[str, Shaped], place: int) -> int:
    """Channels that an MLP's first layer gives (0), or that its last is given (-1)."""
    if side_by_side(weights):
        rows, width = weights[IN_PROJ].shape
        return rows - 3 * width
    weight = weights[f"{_MLP}.{mlp_layers(mlp(weights))[place]}.weight"]
    return weight.shape[0 if place == 0 else 1]


def layers(weights: Mapping[str, Shaped]) -> tuple[str, ...]:
    """The leaves of the linear layers of a block, without which it is none."""
    if kind := side_by_side(weights):
        return tuple(layer.leaf for layer in parallel.layers(kind, 1, 1))
    return ("attn.qkv", "attn.proj", *(f"mlp.{leaf}" for leaf in mlp_layers(mlp(weights))))


def mlp(weights: Mapping[str, Shaped]) -> str:
    """The kind of the MLPs, one of `plan.mlps.KINDS`; the gate of a packed one may stand behind."""
    if f"{_MLP}.fc1_g.weight" in weights:
        return mlps.SPLIT
    if f"{_MLP}.w0.weight" in weights:
        return mlps.NORMED
    first, second = (weights.get(f"{_MLP}.{leaf}.weight") for leaf in ("fc1", "fc2"))
    if first is None or second is None or not len(first.shape) == len(second.shape) == 2:
        return mlps.PLAIN
    packed = second.shape[1] and first.shape[0] == 2 * second.shape[1]
    return mlps.PACKED if packed else mlps.PLAIN


def mlp_layers(kind: str) -> tuple[str, ...]:
    """The leaves of the linear layers of an MLP."""
    return tuple(layer.leaf for layer in mlps.layers(kind, 1, 1))
