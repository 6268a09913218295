"""ONNX file and checkpoint → sessions and reference → parity → report, failing image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.commands import belonging
from ltmp_export.commands.stages import loaded
from ltmp_export.errors import InputError
from ltmp_export.files import disk
from ltmp_export.images import inputs
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import ExportedModel, read_exported
from ltmp_export.parity import compare, repro
from ltmp_export.parity.masked_distance import masked_distance
from ltmp_export.parity.report import CheckReport
from ltmp_export.progress import Progress, silent
from ltmp_export.statements.choices import Choices

CHECK_SAMPLES = 16


def check(
    model: str | Path,
    checkpoint: str | Path | Checkpoint,
    *,
    images: str | Path | Images | None = None,
    samples: int | None = None,
    batch_sizes: Sequence[int] | None = None,
    choices: Choices | None = None,
    save_repro: str | Path | None = None,
    strict: bool = False,
    masked: bool = False,
    progress: Progress = silent,
) -> CheckReport:
    """Compare an exported file in onnxruntime with the reference from its checkpoint.

    Args:
        model: File written by `export`.
        checkpoint: The checkpoint, or one loaded before (then `choices` must be None). For the
            very file that was exported, what `choices` leaves open is as stated at the export.
        images: A folder of pictures or an `.npz`, see `images.inputs.load_images`, or what that
            gave.
        samples: Compare at most so many images, 16 by default.
        batch_sizes: Batch sizes to run at, 1, 2 and 7 by default, or the only one the file takes;
            every image is run alone as well.
        choices: What the checkpoint does not say.
        save_repro: Where to put the first failing image for `replay`; a new or empty folder.
        strict: Whether a borderline image is a failing one there.
        masked: Also say how far the published masked form of the checkpoint is from what is
            deployed; this does not touch the verdict.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: A file cannot be used.
    """
    exported = read_exported(Path(model))
    if not isinstance(checkpoint, Checkpoint):
        choices = belonging.as_exported(exported, Path(checkpoint), choices or Choices())
    owner = loaded(checkpoint, choices, progress)
    count = CHECK_SAMPLES if samples is None else samples
    chosen = inputs.load_images(images, exported.geometry, exported.preprocessing, count)
    if masked and owner.plan.family not in families.learned():
        raise InputError(f"--masked: family {owner.plan.family} has no masked form")
    if masked and not owner.geometry.classes:
        raise InputError(f"--masked compares classes, and {owner.path} has no classifier")
    report = _check(exported, owner, chosen, batch_sizes, save_repro, strict, progress)
    if masked and len(chosen):
        report = replace(report, masked=masked_distance(owner, chosen, progress))
    return report


def replay(
    folder: str | Path,
    model: str | Path | None = None,
    checkpoint: str | Path | Checkpoint | None = None,
    *,
    choices: Choices | None = None,
    progress: Progress = silent,
) -> CheckReport:
    """Check again the batch that a check saved because an image in it failed.

    Args:
        folder: Written by `check(save_repro=…)`.
        model: The exported file; by default the one that failed, where it was.
        checkpoint: The checkpoint; by default the one of that check, where it was.
        choices: What the checkpoint does not say, as for `check`; stated then if not now.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: The folder or a file cannot be used.
    """
    saved = repro.load(Path(folder))
    exported = read_exported(saved.model if model is None else Path(model))
    if checkpoint is None:
        checkpoint = saved.checkpoint
    if not isinstance(checkpoint, Checkpoint):
        choices = (choices or Choices()).over(saved.choices)
    owner = loaded(checkpoint, choices, progress)
    warnings = [
        f"{path} is another file than the one of the saved check"
        for path, digest, then in (
            (exported.path, disk.sha256(exported.path), saved.model_sha256),
            (owner.path, owner.sha256, saved.checkpoint_sha256),
        )
        if digest != then
    ]
    batch = repro.images(saved, exported.geometry, exported.preprocessing)
    report = _check(exported, owner, batch, (len(batch),), None, False, progress)
    found = (
        f"saved as: {saved.found['verdict']} at row {saved.found['row']}: {saved.found['reason']}"
    )
    return replace(report, warnings=(found, *warnings, *report.warnings))


def _check(
    exported: ExportedModel,
    checkpoint: Checkpoint,
    images: Images,
    batch_sizes: Sequence[int] | None,
    save_repro: str | Path | None,
    strict: bool,
    progress: Progress,
) -> CheckReport:
    checkpoint = belonging.as_in_file(exported, checkpoint)
    warnings = [*belonging.doubts(exported, checkpoint), *images.remarks]
    if batch_sizes is None:
        batch_sizes = compare.default_batch_sizes(exported.proto)
    if len(images) < 2 and max(batch_sizes, default=1) > 1:
        warnings.append("one image only: its batches hold copies, and prove nothing about mixing")
    report = compare.compare(
        exported.proto, checkpoint, images, batch_sizes=batch_sizes, name=exported.path,
        warnings=warnings, stated=exported.plan, precision=exported.precision, progress=progress,
    )  # fmt: skip
    failing = report.first_failing(strict)
    if save_repro is not None and failing is not None:
        progress("saving the failing image")
        model, path = exported.proto, exported.path
        folder, precision = Path(save_repro), exported.precision
        repro.save(folder, model, path, checkpoint, images, report, failing, precision)
    return report
