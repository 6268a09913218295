"""A timm model that holds a checkpoint's weights, and how it gets them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ltmp_export.errors import InputError
from ltmp_export.plan.geometry import Geometry
from ltmp_export.statements.gather import Answer


@dataclass(frozen=True)
class Built:
    """What the `build` of each network gives.

    Attributes:
        model: Of timm, which is untyped; in eval mode.
        geometry: Of it.
        answers: What the weights do not tell, by timm's word, and where it is from.
        warnings: What was changed to build it, and how it is not what its name says.
    """

    model: Any
    geometry: Geometry
    answers: Mapping[str, Answer]
    warnings: tuple[str, ...]


def load(model: nn.Module, weights: Mapping[str, Tensor], name: str, source: str) -> None:
    """Give a model its weights; it takes the tensors themselves.

    Args:
        model: timm's.
        weights: Every key must be there with its shape, and no other.
        name: What the model is called, for messages.
        source: Where the weights come from, likewise.

    Raises:
        InputError: A key is missing, unexpected or of another shape.
    """
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
        raise InputError(f"{source}: the weights are not those of {name}: {', '.join(parts)}")
    model.load_state_dict(dict(weights), assign=True)
