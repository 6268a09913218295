"""Where a run begins: its thresholds, and what a run that goes on with it must begin with."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.families import Family
from ltmp_export.files.plain import plain
from ltmp_export.images.labelled import Labelled
from ltmp_export.training.settings import Settings


def thresholds(source: Checkpoint, method: Family, settings: Settings) -> dict[str, list[float]]:
    """Where the thresholds start: as stated, as the checkpoint has them, as the family does.

    Raises:
        InputError: A start is stated of thresholds that the family does not have.
    """
    if strange := sorted(set(settings.start) - set(method.start)):
        raise InputError(
            f"family {method.name} has no {strange[0]} thresholds; drop --start-{strange[0]}"
        )
    own = source.plan.thresholds()
    return {
        kind: [settings.start[kind]] * source.vit.depth
        if kind in settings.start
        else own.get(kind, [start] * source.vit.depth)
        for kind, start in method.start.items()
    }


def described(
    source: Checkpoint, method: Family, train: Labelled, held_out: Labelled, settings: Settings
) -> dict[str, Any]:
    """What a run is started with: that of the one to be resumed must be the same."""
    words = {key.replace("_", " "): value for key, value in settings.to_json().items()}
    return {
        "checkpoint": source.sha256,
        "base checkpoint": source.base_sha256,
        "model": plain(source.vit.to_json()),
        "preprocessing": plain(asdict(source.preprocessing)),
        "family": method.name,
        "images": _digest(train),
        "images held out": _digest(held_out),
        "number of images": len(train),
        **words,
    }


def _digest(images: Labelled) -> str:
    """Of a file, or of names and labels."""
    names = hashlib.sha256("\n".join(images.names).encode())
    names.update(images.require_labels().tobytes())
    return images.sha256 or names.hexdigest()
