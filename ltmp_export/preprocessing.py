"""How pictures become model inputs: normalisation and resize, in timm's words (SPEC §2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm

from ltmp_export.errors import InputError
from ltmp_export.vit import Vit

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the model's input, in timm's words.

    Attributes:
        mean: Subtracted per channel, after scaling to [0, 1].
        std: Divided by per channel.
        crop_pct: Share of the resized image's side that the centre crop keeps.
        interpolation: Resampling filter of the resize.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    interpolation: str


def resolve(
    stated: Mapping[str, Any], args: Mapping[str, Any], model: Vit
) -> tuple[Preprocessing, tuple[str, ...]]:
    """User, else file, else timm's configuration of the name, else ImageNet's with a note.

    Args:
        stated: `mean` and `std` where the user gave them.
        args: The training script's arguments in the checkpoint.
        model: Whose name timm may know.

    Returns:
        The preprocessing, and what was assumed.

    Raises:
        InputError: Values that are no normalisation.
    """
    config = (
        timm.get_pretrained_cfg(model.name) if timm.is_model(model.name.split(".")[0]) else None
    )
    notes = []

    def find(key: str, default: Any) -> Any:
        if (value := stated.get(key) or args.get(key)) is not None:
            return value
        if config is not None and getattr(config, key) is not None:
            return getattr(config, key)
        notes.append(f"{key} {default}")
        return default

    mean = _per_channel("mean", find("mean", IMAGENET_MEAN), model.in_chans)
    std = _per_channel("std", find("std", IMAGENET_STD), model.in_chans)
    if min(std) <= 0.0:
        raise InputError(f"std is {std}; every value must be above 0")
    crop = float(find("crop_pct", 0.875))
    interpolation = str(find("interpolation", "bicubic"))
    return Preprocessing(mean, std, crop, interpolation), tuple(notes)


def _per_channel(key: str, values: Any, channels: int) -> tuple[float, ...]:
    numbers = tuple(float(v) for v in values) if isinstance(values, (list, tuple)) else ()
    if len(numbers) == 1:
        numbers *= channels
    if len(numbers) != channels or not all(map(math.isfinite, numbers)):
        raise InputError(f"{key} is {values}; expected {channels} finite numbers, one per channel")
    return numbers
