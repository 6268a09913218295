"""Do an exported file and a checkpoint belong together? Told before anything is run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ltmp_export.backbones import chosen
from ltmp_export.checkpoint import hub
from ltmp_export.checkpoint.contents import locate
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.files import disk
from ltmp_export.model_file import handled
from ltmp_export.model_file.model import ExportedModel
from ltmp_export.statements.choices import Choices


def as_exported(exported: ExportedModel, checkpoint: Path, choices: Choices) -> Choices:
    """What the user states now; for the file that was exported, else what was stated then."""
    return choices.over(exported.choices) if is_source(exported, checkpoint) else choices


def is_source(exported: ExportedModel, checkpoint: Path) -> bool:
    """Whether this is the very file that was exported."""
    return disk.sha256(locate(hub.file_of(checkpoint))) == exported.checkpoint_sha256


def as_in_file(exported: ExportedModel, loaded: Checkpoint) -> Checkpoint:
    """The checkpoint with the budget of the file, and without a classifier that it left out."""
    keep = exported.plan.keep
    if not exported.geometry.classes and loaded.geometry.classes:
        loaded = loaded.without_classifier()
    if keep is None or loaded.plan.static or len(keep) != loaded.geometry.depth:
        return loaded
    return replace(loaded, plan=loaded.plan.within(keep))


def doubts(exported: ExportedModel, loaded: Checkpoint) -> list[str]:
    """What looks wrong.

    Raises:
        InputError: The two do not have the same shape.
    """
    for what in ("kind", "input_size", "depth", "classes"):
        theirs, ours = getattr(exported.geometry, what), getattr(loaded.geometry, what)
        if theirs != ours:
            raise InputError(
                f"{exported.path} has {what} {theirs}, the checkpoint {loaded.path} has {ours}: "
                "they do not belong together"
            )
    stored = chosen.arrays(loaded.model) | dict(loaded.plan.parameters)
    tooled = handled.unseen(exported.proto, stored)
    warnings = [*loaded.warnings, *(f"{exported.path} {remark}" for remark in tooled)]
    if exported.checkpoint_sha256 != loaded.sha256:
        warnings.append(f"{exported.path} was exported from another file than {loaded.path}")
    if exported.plan.family != loaded.plan.family:
        warnings.append(f"{exported.path} is {exported.plan.family}, not {loaded.plan.family}")
    elif exported.plan.thresholds() != loaded.plan.thresholds():
        warnings.append(f"{exported.path} and {loaded.path} have different thresholds")
    elif exported.plan != loaded.plan:
        warnings.append(f"{exported.path} and {loaded.path} do not take the same steps")
    if not exported.precision.batch_invariant:
        warnings.append(
            f"{exported.path} measures the scales of activations on each batch: an image's result "
            "depends on the others in it, and is not compared with the image alone"
        )
    if exported.preprocessing != loaded.preprocessing:
        warnings.append(f"{exported.path} and {loaded.path} prepare images differently")
    return warnings
