"""What kinds of layers a ViT of timm's has, by the names and shapes of its weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ltmp_export.plan import mlps

if TYPE_CHECKING:
    from ltmp_export.backbones.vit.features import Shaped

_MLP = "blocks.0.mlp"


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
