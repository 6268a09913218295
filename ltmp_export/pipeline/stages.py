"""What the commands have in common: a checkpoint to begin with, and words on progress."""

from __future__ import annotations

from pathlib import Path

from ltmp_export import families, inputs
from ltmp_export.checkpoint import Checkpoint, load_checkpoint
from ltmp_export.choices import Choices
from ltmp_export.errors import InputError
from ltmp_export.families import Family
from ltmp_export.freezing import require_tokens
from ltmp_export.inputs import Images
from ltmp_export.plan import DENSE
from ltmp_export.progress import Progress
from ltmp_export.suggestions import did_you_mean

DEFAULT_FAMILY = "ltmp"
CALIBRATION_SAMPLES = 128


def loaded(
    checkpoint: str | Path | Checkpoint, choices: Choices | None, progress: Progress
) -> Checkpoint:
    """A checkpoint read now, or one that was read before.

    Raises:
        InputError: It cannot be read or used.
        ValueError: Choices are given for one that was read before.
    """
    if not isinstance(checkpoint, Checkpoint):
        progress("reading the checkpoint")
        return load_checkpoint(checkpoint, choices)
    if choices is not None:
        raise ValueError("choices belong to load_checkpoint when a Checkpoint is given")
    return checkpoint


def calibration(source: Checkpoint, images: str | Path | None, samples: int | None) -> Images:
    """What scales and ranges are measured on, see `inputs.load_images`; 128 given ones by default.

    Raises:
        InputError: There is nothing to read, or it is of another geometry.
    """
    if images is None:
        return inputs.load_images(None, source.vit, source.preprocessing, samples)
    count = CALIBRATION_SAMPLES if samples is None else samples
    return inputs.load_images(Path(images), source.vit, source.preprocessing, count)


def family_of(source: Checkpoint) -> Family:
    """The family to make thresholds of: the one stated, else the checkpoint's own, else ltmp.

    Raises:
        InputError: There is no such family.
    """
    own = DEFAULT_FAMILY if source.plan.family == DENSE else source.plan.family
    name = source.choices.family or own
    if name in families.counted():
        raise InputError(
            f"family {name} has no thresholds to make; it needs none: ltmp export --family {name} "
            "--r 8"
        )
    if name not in families.learned():
        raise InputError(
            f"no family {name!r} with thresholds; choose from {', '.join(families.learned())}"
            f"{did_you_mean(name, families.learned())}"
        )
    family = families.load(name)
    require_tokens(family, source.vit, source.path)
    return family
