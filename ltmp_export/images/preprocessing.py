"""How pictures become model inputs: normalisation and resize, in timm's words (METHOD §2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ltmp_export.errors import InputError
from ltmp_export.plan.geometry import Geometry
from ltmp_export.statements.choices import Choices
from ltmp_export.statements.gather import Answer, place

if TYPE_CHECKING:
    from ltmp_export.statements.timm_names import TimmName

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
        assumed: Which of these nothing tells; not part of what is compared.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    interpolation: str
    crop_mode: str = CENTER
    assumed: tuple[str, ...] = field(default=(), compare=False)

    @property
    def normalises_by_guess(self) -> bool:
        """Whether mean or deviation are ImageNet's for want of a better one."""
        return not {"mean", "std"}.isdisjoint(self.assumed)

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


class Resolved(NamedTuple):
    """How images are prepared, where each part is from by timm's word for it, and what is odd."""

    preprocessing: Preprocessing
    answers: dict[str, Answer]
    warnings: tuple[str, ...]


def resolve(
    choices: Choices,
    args: Mapping[str, Any],
    model: Geometry,
    name: TimmName | None,
    configured: Mapping[str, str] | None = None,
) -> Resolved:
    """User, else file, else timm's configuration of the name, else ImageNet's, assumed.

    As timm does for evaluation: values that are empty say nothing, each is looked up on its own.

    Args:
        choices: `mean` and `std` where the user gave them.
        args: The training script's arguments in the checkpoint.
        model: Geometry.
        name: timm's model of that name, if there is one.
        configured: Where those of the arguments stand that are not a script's.

    Raises:
        InputError: Values that are no normalisation.
    """
    config = None if name is None else name.config
    own_crop = None if name is None else name.crop_pct(max(model.image_size))
    told = "" if name is None else name.name
    odd: list[str] = []

    def find(key: str, default: Any, usable: Callable[[Any], bool], *more: Answer) -> Answer:
        known = Answer(getattr(config, key, None), told)
        for answer in (Answer(args.get(key), place(key, configured or {})), *more, known):
            if answer.value is not None and usable(answer.value):
                return answer
            if isinstance(answer.value, (str, int, float)) and answer.value:
                shown = str(answer.value)[:40]
                odd.append(f"{key} {shown!r} ({answer.where}) is none that timm evaluates with")
        return Answer(default, "usual", True)

    def vector(key: str, default: tuple[float, ...]) -> Answer:
        stated = getattr(choices, key)
        answer = Answer(stated, f"--{key}")
        if stated is None:
            answer = find(key, default, lambda values: isinstance(values, (list, tuple)))
        return answer._replace(value=_per_channel(key, answer.value, model.in_chans))

    found = {"mean": vector("mean", IMAGENET_MEAN), "std": vector("std", IMAGENET_STD)}
    if min(found["std"].value) <= 0.0:
        raise InputError(f"std is {found['std'].value}; every value must be above 0")
    found["crop_pct"] = find(
        "crop_pct",
        0.875,
        _is_share,
        Answer(args.get("eval_crop_ratio"), "args.eval_crop_ratio"),  # DeiT's word
        Answer(own_crop, f"the script of {name.said}" if name is not None else ""),
    )
    found["interpolation"] = find("interpolation", "bicubic", lambda v: v in INTERPOLATIONS)
    mode = find("crop_mode", CENTER, lambda v: v in CROP_MODES)
    # What states a share and no mode is older than timm's modes, and means the first of them.
    found["crop_mode"] = mode._replace(assumed=mode.assumed and found["crop_pct"].assumed)
    assumed = () if choices.assume_defaults else tuple(k for k, v in found.items() if v.assumed)
    values = {key: answer.value for key, answer in found.items()}
    values["crop_pct"] = float(values["crop_pct"])
    return Resolved(Preprocessing(**values, assumed=assumed), found, tuple(odd))


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
