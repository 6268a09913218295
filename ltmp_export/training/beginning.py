"""Where a run begins: its goal, and what a run that goes on with it must begin with."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.families import Family
from ltmp_export.files.plain import plain
from ltmp_export.images.labelled import Labelled
from ltmp_export.training.forms import FORMS
from ltmp_export.training.goal import Goal
from ltmp_export.training.model import MaskedVit
from ltmp_export.training.settings import Running, Settings, StaticSettings
from ltmp_export.training.static_model import StaticVit
from ltmp_export.training.thresholds import Thresholds
from ltmp_export.training.weights import Weights


def goal(source: Checkpoint, method: Family, settings: Running) -> Goal:
    """What a run with these settings is after, on the model of a checkpoint.

    Raises:
        InputError: The settings are those of another kind of training than the family's, or do not
            fit it, or it cannot be trained.
    """
    if isinstance(settings, Settings):
        if not method.start:
            raise InputError(
                f"family {method.name} has no thresholds to learn; train its weights, with "
                "StaticSettings"
            )
        start = thresholds(source, method, settings)
        form = FORMS[settings.form]
        masked = MaskedVit(source.model, method, start, form, settings.tau, source.plan)
        return Thresholds(masked, source.vit, settings)
    if method.start or not isinstance(settings, StaticSettings):
        raise InputError(f"family {method.name} learns thresholds; train it with Settings")
    model = StaticVit(source.model, source.plan)
    if settings.lr_new is not None and not model.names:
        raise InputError(
            f"family {method.name} has no weights of its own that --lr-new could be for; drop it"
        )
    return Weights(model, source.vit, settings)


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
    source: Checkpoint,
    method: Family,
    train: Labelled,
    held_out: Labelled,
    settings: Running,
    goal: Goal,
) -> dict[str, Any]:
    """What a run is started with: that of the one to be resumed must be the same."""
    told = dict(goal.plan.stated) | settings.to_json()
    plan = source.plan
    told |= {"merged_position": plan.merged_position} if plan.merged_position else {}
    told |= {"metric_position": plan.metric_position} if plan.metric_position else {}
    words = {key.replace("_", " "): plain(value) for key, value in told.items()}
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
