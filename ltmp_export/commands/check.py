"""ONNX file and checkpoint → sessions and reference → parity → report, failing image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.commands import belonging
from ltmp_export.commands.inputs import takes_half
from ltmp_export.commands.pictured import distance_of, require_images
from ltmp_export.commands.stages import loaded
from ltmp_export.errors import InputError
from ltmp_export.files import disk
from ltmp_export.images import fed, inputs
from ltmp_export.images.inputs import Images
from ltmp_export.model_file import targets
from ltmp_export.model_file.model import ExportedModel, read_exported
from ltmp_export.parity import compare, repro
from ltmp_export.parity.computed import Computed, Here
from ltmp_export.parity.masked_distance import masked_distance
from ltmp_export.parity.recorded import Recorded
from ltmp_export.parity.report import CheckReport
from ltmp_export.progress import Progress, silent
from ltmp_export.runtimes import installed
from ltmp_export.runtimes.session import ONNXRUNTIME
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
    runtime: str = ONNXRUNTIME,
    providers: Sequence[str] = (),
    recorded: str | Path | None = None,
    progress: Progress = silent,
) -> CheckReport:
    """Compare an exported file with the reference from its checkpoint.

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
        runtime: What runs the file, see `runtimes.session.names`.
        providers: onnxruntime's execution providers, the first is what is checked.
        recorded: What ran the file elsewhere, see `parity.recorded`: an `.npz` or a folder. Its
            images are those of `inputs`, 14 by default.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: A file cannot be used.
        UnavailableError: The runtime or a provider is not installed.
    """
    installed.require(runtime)
    if recorded is not None and (save_repro is not None or runtime != ONNXRUNTIME or providers):
        raise InputError(
            "--recorded judges what ran elsewhere; drop --runtime, --providers and --save-repro"
        )
    exported = read_exported(Path(model))
    if not isinstance(checkpoint, Checkpoint):
        choices = belonging.as_exported(exported, Path(checkpoint), choices or Choices())
    owner = loaded(checkpoint, choices, progress)
    chosen, computed = _computed(
        exported, images, samples, batch_sizes, runtime, providers, recorded
    )
    if masked and owner.plan.family not in families.learned():
        raise InputError(f"--masked: family {owner.plan.family} has no masked form")
    if masked and not owner.geometry.classes:
        raise InputError(f"--masked compares classes, and {owner.path} has no classifier")
    report = _check(exported, owner, chosen, batch_sizes, computed, progress)
    if recorded is None:
        unfit = targets.doubts(exported.proto, runtime)
        report = replace(report, warnings=(*report.warnings, *unfit))
    _save(exported, owner, chosen, report, save_repro, strict, runtime, progress)
    if (pictures := distance_of(exported)) is not None:
        report = report.with_pictures(pictures)
    if masked and len(chosen):
        report = replace(report, masked=masked_distance(owner, chosen, progress))
    return report


def _computed(
    exported: ExportedModel,
    source: str | Path | Images | None,
    samples: int | None,
    batch_sizes: Sequence[int] | None,
    runtime: str,
    providers: Sequence[str],
    recorded: str | Path | None,
) -> tuple[Images, Computed]:
    """The images, and what runs the file on them or ran it."""
    geometry, prepared = exported.geometry, exported.preprocessing
    if recorded is not None:
        require_images(exported, "--recorded")
        sizes = tuple(batch_sizes or compare.default_batch_sizes(exported.proto))
        half = takes_half(exported)
        chosen = fed.images(source, geometry, prepared, samples, sizes, half)
        recording = Recorded(Path(recorded))
        recording.require(exported.proto, geometry, chosen, sizes)
        return chosen, recording
    count = CHECK_SAMPLES if samples is None else samples
    chosen = inputs.load_images(source, geometry, prepared, count)
    return chosen, Here(exported.proto, None, runtime, providers)


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
    installed.require(saved.runtime)
    computed = Here(exported.proto, None, saved.runtime)
    report = _check(exported, owner, batch, (len(batch),), computed, progress)
    found = (
        f"saved as: {saved.found['verdict']} at row {saved.found['row']}: {saved.found['reason']}"
    )
    return replace(report, warnings=(found, *warnings, *report.warnings))


def _check(
    exported: ExportedModel,
    checkpoint: Checkpoint,
    images: Images,
    batch_sizes: Sequence[int] | None,
    computed: Computed,
    progress: Progress,
) -> CheckReport:
    checkpoint = belonging.as_in_file(exported, checkpoint)
    warnings = [*belonging.doubts(exported, checkpoint), *images.remarks]
    if batch_sizes is None:
        batch_sizes = compare.default_batch_sizes(exported.proto)
    if len(images) < 2 and max(batch_sizes, default=1) > 1:
        warnings.append("one image only: its batches hold copies, and prove nothing about mixing")
    return compare.compare(
        exported.proto, checkpoint, images, batch_sizes=batch_sizes, name=exported.path,
        warnings=warnings, stated=exported.plan, precision=exported.precision, computed=computed,
        outputs_alone=True, progress=progress,
    )  # fmt: skip


def _save(
    exported: ExportedModel,
    checkpoint: Checkpoint,
    images: Images,
    report: CheckReport,
    save_repro: str | Path | None,
    strict: bool,
    runtime: str,
    progress: Progress,
) -> None:
    """Keep the first failing image, if there is one and it is to be kept."""
    failing = report.first_failing(strict)
    if save_repro is not None and failing is not None:
        progress("saving the failing image")
        model, path = exported.proto, exported.path
        folder, precision = Path(save_repro), exported.precision
        owner = belonging.as_in_file(exported, checkpoint)
        repro.save(folder, model, path, owner, images, report, failing, precision, runtime)
