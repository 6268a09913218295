"""What kinds of layers a ViT of timm's has, by the names and shapes of its weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ltmp_export.plan import mlps

if TYPE_CHECKING:
    from ltmp_export.backbones.vit.features import Shaped

_MLP = "blocks.0.mlp"


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
    return weights["blocks.0.norm1.weight"].shape[0], weights[first].shape[1], height, across


def rms(keys: Collection[str]) -> bool:
    """Whether norms have no biases, as RMSNorm has none."""
    return "blocks.0.norm1.weight" in keys and "blocks.0.norm1.bias" not in keys


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


def mlp_weight(kind: str, place: int) -> str:
    """The name in block 0 of an MLP's first (0) or last (-1) weight."""
    return f"{_MLP}.{mlp_layers(kind)[place]}.weight"


def mlp_layers(kind: str) -> tuple[str, ...]:
    """The leaves of the linear layers of an MLP."""
    return tuple(layer.leaf for layer in mlps.layers(kind, 1, 1))
