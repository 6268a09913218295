"""From a file to a `Checkpoint`: weights, frozen plan, architecture and preprocessing (SPEC §2).

What a file does not say is asked for, never guessed; what had to be assumed is in `notes`, what
looks wrong but can be used is in `warnings`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from ltmp_export import build, families, files, preprocessing
from ltmp_export.contents import KINDS, Contents, take_apart
from ltmp_export.errors import InputError
from ltmp_export.plan import Plan
from ltmp_export.preprocessing import Preprocessing
from ltmp_export.reference import verify_against_timm
from ltmp_export.vit import Vit

FIXED_RATE_PREFIXES = ("m", "p", "mp", "pm")  # registered by the authors; no thresholds (SPEC §1)
INITIAL = {"merge": (0.9, 1.0), "prune": (0.0,)}


# What the parts of a stated choice may be.
_KINDS: Mapping[str, tuple[type, ...]] = {
    "family": (str,),
    "model": (str,),
    "use_ema": (bool,),
    "num_heads": (int,),
    "image_size": (int,),
    "mean": (int, float),
    "std": (int, float),
}


@dataclass(frozen=True)
class Choices:
    """What a user may state about a checkpoint; None leaves it to the file.

    Attributes:
        family: One of `families.names()`.
        model: timm name of the dense model.
        base_checkpoint: File with the weights of a thresholds-only checkpoint.
        use_ema: Take the exponential moving average of the weights.
        num_heads: Attention heads.
        image_size: (height, width) in pixels.
        mean: Per-channel mean of the normalisation, in [0, 1].
        std: Per-channel standard deviation of the normalisation.
    """

    family: str | None = None
    model: str | None = None
    base_checkpoint: Path | None = None
    use_ema: bool | None = None
    num_heads: int | None = None
    image_size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """What was stated, as plain values; the base checkpoint's path is left out."""
        values = asdict(self) | {"base_checkpoint": None}
        return {key: value for key, value in values.items() if value is not None}

    def over(self, earlier: Choices) -> Choices:
        """These, and what was stated earlier where these say nothing."""
        stated = {key: value for key, value in vars(self).items() if value is not None}
        return replace(earlier, **stated)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Choices:
        """The inverse of `to_json`.

        Raises:
            ValueError: A value is not of its kind.
            TypeError: There is no choice of that name.
        """
        pairs: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        for key, value in pairs.items():
            parts = value if isinstance(value, tuple) else (value,)
            if not all(isinstance(part, _KINDS.get(key, ())) for part in parts):
                raise ValueError(f"{key} cannot be {value!r}")
        return cls(**pairs)


@dataclass(frozen=True)
class Checkpoint:
    """A fine-tuned checkpoint, read, checked and frozen.

    Attributes:
        path: The file.
        sha256: Digest of the file.
        base_sha256: Digest of the base checkpoint, where there is one.
        arch: The name the file gives itself, if any.
        plan: Family and frozen thresholds per block.
        vit: Geometry of the dense model.
        model: timm's model with the weights, eval mode, float32.
        preprocessing: Normalisation and resize.
        label_names: Class names where the file knows them.
        choices: What the user stated.
        notes: What was assumed.
        warnings: What looks wrong.
    """

    path: Path
    sha256: str
    base_sha256: str | None
    arch: str | None
    plan: Plan
    vit: Vit
    model: VisionTransformer = field(repr=False)
    preprocessing: Preprocessing
    label_names: tuple[str, ...] | None
    choices: Choices
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def load_checkpoint(path: str | Path, choices: Choices | None = None) -> Checkpoint:
    """Read a fine-tuned LTMP checkpoint.

    Args:
        path: timm `CheckpointSaver` file, bare state_dict, `{"model": …}`, safetensors, or
            thresholds only (then `choices.base_checkpoint` holds the weights).
        choices: What the file does not say, or what the user wants otherwise.

    Raises:
        InputError: The file cannot be read or used, or something must be stated.
    """
    path, choices = Path(path), choices or Choices()
    base = choices.base_checkpoint
    averaged = bool(choices.use_ema) and base is None
    contents = _with_base(path, take_apart(path, averaged), choices)
    weights = contents.weights
    _require_finite(weights)
    family, name, warnings = _family_and_name(path, contents, choices)
    depth = build.block_count(weights)
    plan = families.load(family).freeze(_complete(path, contents.thresholds, family, depth))
    warnings += _untrained(plan)
    built = build.build(
        weights,
        name,
        heads=choices.num_heads,
        image_size=choices.image_size or _stated_image_size(contents.args),
        pool=contents.args.get("gp"),
    )
    verify_against_timm(built.model, built.vit.input_size, built.vit.name)
    applied, assumed = preprocessing.resolve(vars(choices), contents.args, built.vit)
    return Checkpoint(
        path=path,
        sha256=files.sha256(path),
        base_sha256=None if base is None else files.sha256(base),
        arch=contents.arch,
        plan=plan,
        vit=built.vit,
        model=built.model,
        preprocessing=applied,
        label_names=_label_names(contents.args, built.vit),
        choices=choices,
        notes=built.notes + assumed,
        warnings=tuple(warnings),
    )


def _with_base(path: Path, contents: Contents, choices: Choices) -> Contents:
    """Complete a thresholds-only file from its base, name and arguments included."""
    base = choices.base_checkpoint
    if contents.weights and base is not None:
        raise InputError(f"{path} holds weights of its own; drop --base-checkpoint {base}")
    if contents.weights:
        return contents
    if base is None:
        raise InputError(
            f"{path} holds thresholds only; give the dense model's weights with --base-checkpoint"
        )
    dense = take_apart(base, bool(choices.use_ema))
    if not dense.weights:
        raise InputError(f"{base} holds no weights either; give the dense model's checkpoint")
    return Contents(
        contents.arch or dense.arch,
        {**dense.args, **contents.args},
        dense.weights,
        contents.thresholds,
    )


def _require_finite(weights: Mapping[str, torch.Tensor]) -> None:
    for key, value in weights.items():
        if not value.isfinite().all():
            raise InputError(f"{key} holds NaN or infinite values; the checkpoint is broken")


def _family_and_name(
    path: Path, contents: Contents, choices: Choices
) -> tuple[str, str | None, list[str]]:
    """Family, timm name of the dense model if known, and warnings."""
    present = tuple(kind for kind in KINDS if contents.thresholds[kind])
    if not present:
        raise InputError(
            f"{path} holds no thresholds (blocks.N.merge_masker.threshold, …): it is a dense "
            "model or was not fine-tuned with a learned-threshold method"
        )
    warnings: list[str] = []
    written, name = split_arch(contents.arch)
    if choices.model is not None:
        stated, name = split_arch(choices.model)
        if stated and written and stated != written:
            warnings.append(f"--model says {stated}, the file {written}; --family decides")
        written = written or stated
        if not timm.is_model((name or "").split(".")[0]):
            near = ", ".join(build.closest_names(name or "")) or "none alike"
            raise InputError(f"timm has no model {choices.model!r}; did you mean: {near}?")
    if written in FIXED_RATE_PREFIXES:
        raise InputError(f"{contents.arch}: fixed-rate family {written!r} is not supported")
    fitting = [f for f in families.names() if families.load(f).scalars == present]
    family = choices.family or written or (fitting[0] if len(fitting) == 1 else None)
    if family is None:
        raise InputError(
            f"{path}: {' and '.join(present)} thresholds fit {' or '.join(fitting)}, and the file "
            f"has no 'arch' to tell; state it with --family {'|'.join(fitting)}"
        )
    if family not in families.names():
        raise InputError(f"no family {family!r}; choose from {', '.join(families.names())}")
    if family not in fitting:
        raise InputError(
            f"{path}: family {family} needs {' and '.join(families.load(family).scalars)} "
            f"thresholds; the file has {' and '.join(present)}"
        )
    if choices.family and written and choices.family != written:
        warnings.append(f"family {choices.family} as asked, though the file says {written}")
    return family, name, warnings


def split_arch(arch: str | None) -> tuple[str | None, str | None]:
    """Split "ltmp_deit_small_patch16_224" into family prefix and timm name."""
    if arch is None:
        return None, None
    arch = arch.removeprefix("inference_")
    prefix, _, rest = arch.partition("_")
    if rest and prefix in (*families.names(), *FIXED_RATE_PREFIXES):
        return prefix, rest
    return None, arch


def _complete(
    path: Path, thresholds: Mapping[str, Mapping[int, float]], family: str, depth: int
) -> dict[str, Sequence[float]]:
    complete: dict[str, Sequence[float]] = {}
    for kind in families.load(family).scalars:
        found = thresholds[kind]
        missing = sorted(set(range(depth)) - found.keys())
        extra = sorted(found.keys() - set(range(depth)))
        if missing or extra:
            what = (
                f"missing in blocks {missing}" if missing else f"of blocks {extra} without weights"
            )
            raise InputError(f"{path}: {kind} thresholds {what}; the model has {depth} blocks")
        complete[kind] = [found[block] for block in range(depth)]
    return complete


def _untrained(plan: Plan) -> list[str]:
    """A warning for each kind of threshold that is still where training starts."""
    return [
        f"all {kind} thresholds are at their initial value {numbers[0]:g}: never fine-tuned"
        for kind, numbers in plan.thresholds().items()
        if len(set(numbers)) == 1
        and any(math.isclose(numbers[0], start, abs_tol=1e-6) for start in INITIAL[kind])
    ]


def _stated_image_size(args: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) from timm's `input_size` or `img_size`; anything else is not a statement."""
    size, listed = args.get("img_size"), args.get("input_size")
    if isinstance(listed, (list, tuple)) and len(listed) == 3:
        size = tuple(listed[1:])
    if isinstance(size, int):
        size = (size, size)
    if isinstance(size, (list, tuple)) and len(size) == 2:
        height, width = size
        if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0:
            return (height, width)
    return None


def _label_names(args: Mapping[str, Any], model: Vit) -> tuple[str, ...] | None:
    names = args.get("label_names")
    if isinstance(names, (list, tuple)) and len(names) == model.classes:
        return tuple(map(str, names))
    return None
