"""What the commands have in common: a checkpoint to begin with, and words on progress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ltmp_export.checkpoint.freeze import require_learned, require_trained
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.families import Family
from ltmp_export.files import memory
from ltmp_export.images import inputs
from ltmp_export.images.inputs import Images
from ltmp_export.plan import outputs as plan_outputs
from ltmp_export.plan.outputs import LOGITS
from ltmp_export.progress import Progress
from ltmp_export.statements.choices import Choices

CALIBRATION_SAMPLES = 128
LARGE = 2**28  # bytes of weights from which memory is spared before time


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
        read = load_checkpoint(checkpoint, choices)
        if sum(weight.nbytes for weight in read.model.parameters()) > LARGE:
            memory.return_freed()
        return read
    if choices is not None:
        raise ValueError("choices belong to load_checkpoint when a Checkpoint is given")
    return checkpoint


def calibration(source: Checkpoint, images: str | Path | None, samples: int | None) -> Images:
    """What scales and ranges are measured on, see `images.inputs.load_images`; 128 given ones by
    default.

    Raises:
        InputError: There is nothing to read, or it is of another geometry.
    """
    if images is None:
        return inputs.load_images(None, source.geometry, source.preprocessing, samples)
    inputs.require_normalisation(Path(images), source.preprocessing)
    count = CALIBRATION_SAMPLES if samples is None else samples
    return inputs.load_images(Path(images), source.geometry, source.preprocessing, count)


def closing(source: Checkpoint, images: str | Path | None, samples: int) -> Images:
    """What a file is checked with before it is written: the embedded digits if they are its inputs.

    Else some of those that scales and ranges are measured on, where the user gives such: what
    these make of synthetic pictures tells nothing of the file. Else synthetic ones.

    Raises:
        InputError: As in `calibration`.
    """
    digits = inputs.embedded_digits().pixels.shape[1:] == source.geometry.input_size
    return calibration(source, None if digits else images, samples)


def family_of(source: Checkpoint) -> Family:
    """The family to make thresholds of, see `checkpoint.freeze.require_learned`.

    Raises:
        InputError: There is no such family.
    """
    stated, own = source.choices.family, source.plan.family
    return require_learned(source.path, stated, own, source.vit.class_token)


def trained_family(source: Checkpoint) -> Family:
    """The family to train, see `checkpoint.freeze.require_trained`.

    Raises:
        InputError: There is no such family.
    """
    stated, own = source.choices.family, source.plan.family
    return require_trained(source.path, stated, own, source.vit.class_token)


def measured_on(
    given: tuple[str | Path | None, int | None], measured: str, pictures: Images
) -> list[str]:
    """What is to be said where something is measured on images that nobody gave."""
    if given[0] is not None:
        return []
    return [
        f"{measured} are measured on {pictures.origin}; give pictures like those the model will "
        "see with --calibration-images"
    ]


def giving(source: Checkpoint, asked: Sequence[str] | None) -> tuple[tuple[str, ...], Checkpoint]:
    """What a file is to give, and the model for that: without logits its classifier is left out.

    Raises:
        InputError: It cannot be given.
    """
    gives = plan_outputs.require(asked, source.geometry, source.plan, source.path)
    needless = LOGITS not in gives and source.geometry.classes
    return gives, source.without_classifier() if needless else source
