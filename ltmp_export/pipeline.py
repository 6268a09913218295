"""The commands as functions: the only place that chains the stages.

checkpoint file → Checkpoint → ONNX model → parity → file
                                          → sessions → parity, latency → reports
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from ltmp_export import belonging, files, inputs, latency, onnx_export, parity, repro, runtime
from ltmp_export.check_report import CheckReport
from ltmp_export.checkpoint import Checkpoint, Choices, load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.inputs import Images
from ltmp_export.latency import BenchReport, Settings

SCHEMA_VERSION = 1
DEFAULT_OPSET = 17
CHECK_SAMPLES = 16
QUICK_SAMPLES = 7
DIGITS = "digits_ltmp.pth.tar"  # the embedded checkpoint

Progress = Callable[[str], None]


def _silent(message: str) -> None:
    pass


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Attributes:
        output: The file written.
        bytes: Its size.
        opset: Declared version of the standard domain.
        family: Token-reduction family.
        architecture: timm name, the name the file gives itself, or "vit".
        seconds: Time taken, check included.
        check: The closing check, or None if it was switched off.
        notes: What was assumed.
        warnings: What looks wrong.
    """

    output: Path
    bytes: int
    opset: int
    family: str
    architecture: str
    seconds: float
    check: CheckReport | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        document = asdict(replace(self, check=None)) | {"output": str(self.output)}
        document["check"] = None if self.check is None else self.check.to_json()
        return document | {"schema_version": SCHEMA_VERSION, "kind": "export"}


def export(
    checkpoint: str | Path | Checkpoint,
    output: str | Path = "model.onnx",
    *,
    opset: int = DEFAULT_OPSET,
    token_counts: bool = False,
    check: bool = True,
    choices: Choices | None = None,
    progress: Progress = _silent,
) -> ExportReport:
    """Export a checkpoint to an ONNX file that takes any batch.

    The file appears at `output` only after everything, the check included, has succeeded.

    Args:
        checkpoint: File, or one loaded before (then `choices` must be None).
        output: The file to write.
        opset: Version of the standard domain, 16 to the newest onnxruntime loads.
        token_counts: Add the output `token_counts` int64 [batch, depth].
        check: Compare a batch of mixed images with the reference before writing.
        choices: What the checkpoint does not say.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: The checkpoint or the output path cannot be used.
        ExportError: The graph could not be written as asked.
        CheckFailedError: The graph is not the checkpoint's model; nothing is written.
    """
    started = time.perf_counter()
    output = Path(output)
    runtime.require_opset(opset)
    loaded = _loaded(checkpoint, choices, progress)
    base = loaded.choices.base_checkpoint
    files.require_outputs([output], [loaded.path, *([] if base is None else [base])])
    progress("writing the graph")
    model = onnx_export.to_onnx(loaded, opset=opset, token_counts=token_counts)
    report = None
    if check:
        images = inputs.load_images(None, loaded.vit, loaded.preprocessing, QUICK_SAMPLES)
        sizes = (1, QUICK_SAMPLES)
        report = parity.compare(
            model, loaded, images, batch_sizes=sizes, name=output, progress=progress
        )
        report.require()
    files.write_bytes(output, model.SerializeToString())
    return ExportReport(
        output=output,
        bytes=output.stat().st_size,
        opset=opset,
        family=loaded.plan.family,
        architecture=loaded.vit.name,
        seconds=time.perf_counter() - started,
        check=report,
        notes=loaded.notes,
        warnings=loaded.warnings,
    )


def check(
    model: str | Path,
    checkpoint: str | Path | Checkpoint,
    *,
    images: str | Path | None = None,
    samples: int | None = None,
    batch_sizes: Sequence[int] = parity.BATCH_SIZES,
    choices: Choices | None = None,
    save_repro: str | Path | None = None,
    strict: bool = False,
    progress: Progress = _silent,
) -> CheckReport:
    """Compare an exported file in onnxruntime with the reference from its checkpoint.

    Args:
        model: File written by `export`.
        checkpoint: The checkpoint, or one loaded before (then `choices` must be None). For the
            very file that was exported, what `choices` leaves open is as stated at the export.
        images: A folder of pictures or an `.npz`, see `inputs.load_images`.
        samples: Compare at most so many images, 16 by default.
        batch_sizes: Batch sizes to run at; every image is run alone as well.
        choices: What the checkpoint does not say.
        save_repro: Where to put the first failing image for `replay`; a new or empty folder.
        strict: Whether a borderline image is a failing one there.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: A file cannot be used.
        ExportError: onnxruntime does not run the file.
    """
    exported = onnx_export.read_exported(Path(model))
    if not isinstance(checkpoint, Checkpoint):
        choices = belonging.as_exported(exported, Path(checkpoint), choices or Choices())
    loaded = _loaded(checkpoint, choices, progress)
    source = None if images is None else Path(images)
    count = CHECK_SAMPLES if samples is None else samples
    chosen = inputs.load_images(source, exported.vit, exported.preprocessing, count)
    return _check(exported, loaded, chosen, batch_sizes, save_repro, strict, progress)


def replay(
    folder: str | Path,
    model: str | Path | None = None,
    checkpoint: str | Path | Checkpoint | None = None,
    *,
    choices: Choices | None = None,
    progress: Progress = _silent,
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
        ExportError: onnxruntime does not run the file.
    """
    saved = repro.load(Path(folder))
    exported = onnx_export.read_exported(saved.model if model is None else Path(model))
    if checkpoint is None:
        checkpoint = saved.checkpoint
    if not isinstance(checkpoint, Checkpoint):
        choices = (choices or Choices()).over(saved.choices)
    loaded = _loaded(checkpoint, choices, progress)
    warnings = [
        f"{path} is another file than the one of the saved check"
        for path, digest, then in (
            (exported.path, files.sha256(exported.path), saved.model_sha256),
            (loaded.path, loaded.sha256, saved.checkpoint_sha256),
        )
        if digest != then
    ]
    sizes = (len(saved.images),)
    report = _check(exported, loaded, saved.images, sizes, None, False, progress)
    found = (
        f"saved as: {saved.found['verdict']} at row {saved.found['row']}: {saved.found['reason']}"
    )
    return replace(report, warnings=(found, *warnings, *report.warnings))


def _check(
    exported: onnx_export.ExportedModel,
    loaded: Checkpoint,
    images: Images,
    batch_sizes: Sequence[int],
    save_repro: str | Path | None,
    strict: bool,
    progress: Progress,
) -> CheckReport:
    warnings = belonging.doubts(exported, loaded)
    report = parity.compare(
        exported.proto, loaded, images, batch_sizes=batch_sizes, name=exported.path,
        warnings=warnings, progress=progress,
    )  # fmt: skip
    failing = report.first_failing(strict)
    if save_repro is not None and failing is not None:
        progress("saving the failing image")
        model, path = exported.proto, exported.path
        repro.save(Path(save_repro), model, path, loaded, images, report, failing)
    return report


def bench(
    model: str | Path,
    *,
    images: str | Path | None = None,
    samples: int | None = None,
    baseline: str | Path | None = "dense",
    settings: Settings | None = None,
    progress: Progress = _silent,
) -> BenchReport:
    """Time an exported file per image, against the dense model of the same weights.

    Args:
        model: File written by `export`.
        images: A folder of pictures or an `.npz`, see `inputs.load_images`.
        samples: Time at most so many images; all by default.
        baseline: "dense" for the dense model of the same weights, an ONNX file, or None.
        settings: Batch sizes, threads, runs and providers.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: A file cannot be used.
        UnavailableError: A provider is missing.
        ExportError: onnxruntime does not run a model.
    """
    exported = onnx_export.read_exported(Path(model))
    source = None if images is None else Path(images)
    chosen = inputs.load_images(source, exported.vit, exported.preprocessing, samples)
    if source is None and exported.checkpoint_sha256 != files.sha256(inputs.fixture(DIGITS)):
        chosen = replace(chosen, labels=None)  # another model's classes need not be digits
    other: onnx.ModelProto | None = None
    if baseline == "dense":
        progress("writing the dense model of the same weights")
        other = onnx_export.dense_baseline(exported)
    elif baseline is not None:
        other = onnx_export.read_onnx(Path(baseline))
        runtime.require_images(other, str(baseline), exported.vit.input_size)
    progress(f"timing {len(chosen)} images")
    return latency.measure(
        exported.proto,
        exported.vit,
        chosen,
        settings or Settings(),
        name=str(model),
        baseline=other,
        baseline_name=None if baseline is None else str(baseline),
    )


@dataclass(frozen=True)
class DemoReport:
    """The three reports of the embedded example."""

    export: ExportReport
    check: CheckReport
    bench: BenchReport


def demo(folder: str | Path, progress: Progress = _silent) -> DemoReport:
    """Export, check and time the embedded digits checkpoint.

    Args:
        folder: Where `digits_ltmp.pth.tar` (a copy of the checkpoint) and `model.onnx` go; it is
            made if it does not exist.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: The folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise InputError(f"cannot make the folder {folder}: {err.strerror}") from err
    files.write_bytes(folder / DIGITS, inputs.fixture(DIGITS).read_bytes())
    checkpoint = load_checkpoint(folder / DIGITS)
    exported = export(checkpoint, folder / "model.onnx", progress=progress)
    checked = check(exported.output, checkpoint, samples=48, progress=progress)
    return DemoReport(exported, checked, bench(exported.output, progress=progress))


def _loaded(
    checkpoint: str | Path | Checkpoint, choices: Choices | None, progress: Progress
) -> Checkpoint:
    if not isinstance(checkpoint, Checkpoint):
        progress("reading the checkpoint")
        return load_checkpoint(checkpoint, choices)
    if choices is not None:
        raise ValueError("choices belong to load_checkpoint when a Checkpoint is given")
    return checkpoint
