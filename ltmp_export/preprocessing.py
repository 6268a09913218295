"""How pictures become model inputs: normalisation and resize, in timm's words (SPEC §2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ltmp_export.errors import InputError
from ltmp_export.vit import Vit

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_MOST = 1e30  # of a mean or deviation; NaN and infinity are not below it
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
CENTER = "center"
CROP_MODES = (CENTER, "squash", "border")


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the model's input, in timm's words.

    Attributes:
        mean: Subtracted per channel, after scaling to [0, 1].
        std: Divided by per channel.
        crop_pct: Share of the resized image's side that the crop keeps; above 1 it is padded.
        interpolation: Resampling filter of the resize.
        crop_mode: "center" keeps the aspect ratio and cuts what is left over, "squash" scales each
            side on its own, "border" keeps the aspect ratio and fills up with the mean.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    interpolation: str
    crop_mode: str = CENTER

    def require_known(self) -> None:
        """Check that timm has these words.

        Raises:
            ValueError: It has not.
        """
        for key, known in (("interpolation", INTERPOLATIONS), ("crop_mode", CROP_MODES)):
            if getattr(self, key) not in known:
                raise ValueError(f"{key} {getattr(self, key)!r}; expected {', '.join(known)}")
        if not 0.0 < self.crop_pct < _MOST:
            raise ValueError(f"crop_pct {self.crop_pct}; expected a number above 0")


def resolve(
    stated: Mapping[str, Any], args: Mapping[str, Any], model: Vit
) -> tuple[Preprocessing, tuple[str, ...]]:
    """User, else file, else timm's configuration of the name, else ImageNet's with a note.

    As timm does for evaluation: values that are empty say nothing, each is looked up on its own.

    Args:
        stated: `mean` and `std` where the user gave them.
        args: The training script's arguments in the checkpoint.
        model: Whose name timm may know.

    Returns:
        The preprocessing, and what was assumed.

    Raises:
        InputError: Values that are no normalisation.
    """
    import timm

    config = (
        timm.get_pretrained_cfg(model.name) if timm.is_model(model.name.split(".")[0]) else None
    )
    notes: list[str] = []

    def find(
        key: str, default: Any, usable: Callable[[Any], bool], *, tell: bool = True
    ) -> tuple[Any, bool]:
        """The value, and whether anything states it; where nothing does, a note says so."""
        unused = ""
        for value in (args.get(key), getattr(config, key, None)):
            if value is not None and usable(value):
                if unused:
                    notes.append(f"{key} {value}{unused}")
                return value, True
            if isinstance(value, (str, int, float)) and value:
                unused = f" (the file's {str(value)[:40]!r} is none that timm evaluates with)"
        if tell or unused:
            notes.append(f"{key} {default}{unused}")
        return default, False

    def vector(key: str, default: tuple[float, ...]) -> tuple[float, ...]:
        if (value := stated.get(key)) is None:
            value, _ = find(key, default, lambda values: isinstance(values, (list, tuple)))
        return _per_channel(key, value, model.in_chans)

    mean, std = vector("mean", IMAGENET_MEAN), vector("std", IMAGENET_STD)
    if min(std) <= 0.0:
        raise InputError(f"std is {std}; every value must be above 0")
    crop, known = find("crop_pct", 0.875, _is_share)
    filters, _ = find("interpolation", "bicubic", lambda value: value in INTERPOLATIONS)
    # What states a share and no mode is older than timm's modes, and means the first of them.
    mode, _ = find("crop_mode", CENTER, lambda value: value in CROP_MODES, tell=not known)
    return Preprocessing(mean, std, float(crop), filters, mode), tuple(notes)


def _is_share(value: Any) -> bool:
    """Timm takes any, also above 1."""
    return type(value) in (int, float) and 0.0 < value < _MOST


def _per_channel(key: str, values: Any, channels: int) -> tuple[float, ...]:
    listed = values if isinstance(values, (list, tuple)) else ()
    numbers = tuple(float(v) for v in listed if isinstance(v, (int, float)) and abs(v) < _MOST)
    shown = list(numbers) if len(listed) == len(numbers) < 9 else f"a {type(values).__name__}"
    if len(numbers) == 1:
        numbers *= channels
    if len(numbers) != channels or len(numbers) < len(listed):
        raise InputError(
            f"{key} is {shown}; expected {channels} finite numbers, one per channel; "
            "state them with --mean and --std"
        )
    return numbers
