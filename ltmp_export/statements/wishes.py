"""What is asked of an export, as far as no model need be known: refused before any is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ltmp_export import families
from ltmp_export.distributed.cluster import HERE, Place
from ltmp_export.errors import InputError
from ltmp_export.files import disk, patterns, remote
from ltmp_export.plan import outputs as plan_outputs

AUTO = "auto:"
PICTURES = "a folder of pictures, tar shards or parquet, or an .npz with 'images'"
# Precisions by their names in `precision.formats`: measured on no images, and scaled by some.
FULL, SCALED = "fp32", "int8"


def require(
    *,
    batch_size: int | None,
    outputs: Sequence[str] | None,
    mode: str | None,
    keep_tokens: str | None,
    images: str | Path | None,
    samples: int | None,
    precision: str,
    calibration_images: str | Path | None,
    calibration_samples: int | None,
    place: Place = HERE,
) -> None:
    """Check the options of an export, see `commands.export.export`; `precision` is its kind.

    Raises:
        InputError: They do not go together, or one cannot be done.
        UnavailableError: Ray is missing.
    """
    require_batch_size(batch_size)
    require_budget(mode, keep_tokens, images, samples)
    require_measured(precision, calibration_images, calibration_samples)
    require_place(precision, place)
    if outputs is not None:
        plan_outputs.require_known(outputs)
    for pictures in (images, calibration_images):
        if pictures is not None:
            require_pictures(Path(pictures))


def require_pictures(source: Path) -> None:
    """Check that there is something to read; elsewhere, reading it tells.

    Raises:
        InputError: There is not.
    """
    for path in patterns.expanded(source):
        if not remote.is_remote(path) and not os.path.isdir(path):
            disk.require_file(path, PICTURES)


def require_batch_size(batch_size: int | None) -> None:
    """Check that a graph can be written for this batch size.

    Raises:
        InputError: It cannot.
    """
    if batch_size not in (None, 1):
        raise InputError(
            f"batch size {batch_size}: a file is exported for single images (1) or, by default, "
            "for batches of any size"
        )


def require_measured(precision: str, images: str | Path | None, samples: int | None) -> None:
    """Check that images to measure ranges on are given where these are measured.

    Raises:
        InputError: They are not.
    """
    if precision == FULL and (images, samples) != (None, None):
        raise InputError(
            "--calibration-images and --calibration-samples are about --precision int8 and fp16"
        )


def require_place(precision: str, place: Place) -> None:
    """Check that what can be measured on a cluster is measured, where one is given.

    Raises:
        InputError: It is not, or the cluster is none.
        UnavailableError: Ray is missing.
    """
    if place == HERE:
        return
    if place == Place(workers=place.workers):
        raise InputError("--workers is about processes of a cluster; give --engine ray, too")
    if precision != SCALED:
        raise InputError(
            "--engine, --address and --workers are about the scales of --precision int8"
        )
    place.require()


def require_budget(
    mode: str | None, keep_tokens: str | None, images: str | Path | None, samples: int | None
) -> None:
    """Check that mode, budget and what it is measured on go together.

    Raises:
        InputError: They do not.
    """
    if mode not in (None, "static", "dynamic"):
        raise InputError(f"mode {mode!r}: expected static or dynamic")
    if mode != "static" and keep_tokens is not None:
        raise InputError("--keep-tokens is about --mode static; give that, too")
    automatic = keep_tokens is not None and is_automatic(keep_tokens)
    if (images is not None or samples is not None) and not automatic:
        raise InputError("--images and --samples are about --keep-tokens auto:p99; give that, too")
    if keep_tokens is not None and automatic:
        quantile(keep_tokens)
        if images is None:
            raise InputError(
                f"--keep-tokens {keep_tokens}: give pictures to measure it on (--images)"
            )


def require_mode(mode: str | None, family: str) -> None:
    """Check that a family has files of that mode.

    Raises:
        InputError: It has not.
    """
    if mode == "dynamic" and not families.load(family).varies:
        raise InputError(
            f"family {family} keeps the same number of tokens of every image, and has no dynamic "
            "form; drop --mode"
        )


def is_automatic(text: str) -> bool:
    """Whether a budget is to be measured."""
    return text.startswith(AUTO)


def quantile(text: str) -> float:
    """The quantile in `auto:p99`, as a share; `auto:max` is 1.

    Raises:
        InputError: It is no such thing.
    """
    level = text.removeprefix(AUTO)
    try:
        share = 1.0 if level == "max" else float(level.removeprefix("p")) / 100
    except ValueError:
        share = -1.0
    if not 0.0 < share <= 1.0 or not level.startswith(("p", "max")):
        raise InputError(f"--keep-tokens {text}: expected auto:p99, auto:p99.5, … or auto:max")
    return share
