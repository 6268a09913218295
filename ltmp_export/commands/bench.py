"""ONNX file → contenders → rounds → report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from ltmp_export.commands.time_table import untimed
from ltmp_export.errors import InputError
from ltmp_export.files import disk
from ltmp_export.graph import interface
from ltmp_export.images import inputs
from ltmp_export.images.inputs import Images
from ltmp_export.model_file import reading
from ltmp_export.model_file.dense import dense_baseline
from ltmp_export.model_file.model import ExportedModel, read_exported, to_onnx
from ltmp_export.plan.outputs import LOGITS
from ltmp_export.plan.plan import dense_plan
from ltmp_export.plan.vit import require_vit
from ltmp_export.precision.formats import FP16, FP32, INT8, Precision
from ltmp_export.progress import Progress, silent
from ltmp_export.runtimes import opsets
from ltmp_export.statements.choices import Choices
from ltmp_export.timing import elsewhere, noise
from ltmp_export.timing.contenders import DENSE
from ltmp_export.timing.measure import measure
from ltmp_export.timing.report import BenchReport
from ltmp_export.timing.settings import Settings

if TYPE_CHECKING:
    from ltmp_export.checkpoint.load import Checkpoint

# What reads checkpoints is imported where it is used: PyTorch and timm take seconds.


def bench(
    model: str | Path,
    *,
    images: str | Path | Images | None = None,
    samples: int | None = None,
    baseline: str | Path | None = DENSE,
    side_by_side: str | Path | None = None,
    precisions: str | Path | None = None,
    base_checkpoint: str | Path | None = None,
    calibration_images: str | Path | None = None,
    runtimes: Sequence[str] = (),
    settings: Settings | None = None,
    progress: Progress = silent,
) -> BenchReport:
    """Time an exported file per image, against the dense model of the same weights.

    Args:
        model: File written by `export`.
        images: A folder of pictures or an `.npz`, see `images.inputs.load_images`, or what that
            gave.
        samples: Time at most so many images; all by default.
        baseline: "dense" for the dense model of the same weights, an ONNX file, or None.
        side_by_side: The checkpoint the file was exported from: time what one would pick instead,
            too (eager PyTorch, a literal export, OpenVINO). `baseline` must then be "dense".
        precisions: The checkpoint the file was exported from: time it in the other precisions, too,
            and the dense model in int8. `baseline` must then be "dense", and `side_by_side` None.
        base_checkpoint: The dense weights of a thresholds-only checkpoint.
        calibration_images: For the int8 of `precisions`, as for `export`.
        runtimes: Others to time the file and its baseline in, too, by name; `side_by_side` takes
            all that are installed.
        settings: Batch sizes, threads, rounds and providers.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: A file cannot be used.
        UnavailableError: A provider or a runtime is missing, or is not the one that runs.
        ExportError: onnxruntime does not run a model.
    """
    settings = settings or Settings()
    elsewhere.require(runtimes)
    exported = read_exported(Path(model))
    interface.require_batches(exported.proto, str(model), settings.sizes)
    _require_one_comparison(side_by_side, precisions, baseline, runtimes)
    if calibration_images is not None and precisions is None:
        raise InputError("--calibration-images is about --precisions; give that, too")
    if precisions is not None:
        _require_precisions(exported)
    if side_by_side is not None:
        require_vit(exported.geometry, model, "--side-by-side")
    checkpoint = None
    origin = precisions if side_by_side is None else side_by_side
    if origin is not None:
        progress("reading the checkpoint")
        base = None if base_checkpoint is None else Path(base_checkpoint)
        checkpoint = _origin(exported, Path(origin), base)
    lowered, remarks = None, untimed(exported)
    if precisions is not None and checkpoint is not None:
        from ltmp_export.commands.stages import calibration
        from ltmp_export.timing.precisions import Origin

        lowered = Origin(checkpoint, calibration(checkpoint, calibration_images, None))
        remarks += lowered.calibration.remarks
    chosen = inputs.load_images(images, exported.geometry, exported.preprocessing, samples)
    if images is None and exported.checkpoint_sha256 != disk.sha256(inputs.fixture(inputs.DIGITS)):
        chosen = replace(chosen, labels=None)  # another model's classes need not be digits
    if LOGITS not in exported.outputs:
        chosen = replace(chosen, labels=None)
    other: onnx.ModelProto | None = None
    if baseline == DENSE:
        progress("writing the dense model of the same weights")
        other = _dense(exported, checkpoint)
    elif baseline is not None:
        other = reading.read(Path(baseline))
        interface.require_images(other, str(baseline), exported.geometry.input_size)
        interface.require_batches(other, str(baseline), settings.sizes)
    report = measure(
        exported,
        chosen,
        settings,
        baseline=other,
        baseline_name=None if baseline is None else _label(baseline),
        checkpoint=None if side_by_side is None else checkpoint,
        lowered=lowered,
        runtimes=runtimes,
        progress=progress,
    )
    said = (*chosen.remarks, *remarks, *noise.doubts(report))
    return replace(report, warnings=tuple(dict.fromkeys(said)))


def _require_one_comparison(
    side_by_side: str | Path | None,
    precisions: str | Path | None,
    baseline: str | Path | None,
    runtimes: Sequence[str],
) -> None:
    """Check what is asked for beside the baseline.

    Raises:
        InputError: It does not go together.
    """
    if side_by_side is not None and precisions is not None:
        raise InputError("--side-by-side and --precisions are two tables; ask for one at a time")
    if runtimes and (side_by_side is not None or precisions is not None):
        raise InputError("--runtime is a table of its own; drop --side-by-side or --precisions")
    if baseline == DENSE:
        return
    if side_by_side is not None:
        raise InputError("side by side, the baseline is the dense model; drop the other one")
    if precisions is not None:
        raise InputError("with --precisions, the baseline is the dense model; drop the other one")


def _require_precisions(exported: ExportedModel) -> None:
    """Check that the other precisions can be written at a file's opset.

    Raises:
        InputError: One cannot.
    """
    geometry, own = exported.geometry, exported.precision
    integers = Precision(INT8, scales=own.scales, int8_form=own.int8_form)
    asked = [Precision(FP32), Precision(FP16), integers]
    try:
        for one in (*asked, replace(integers, protected=False)):
            opsets.require(exported.opset, one, geometry.activation, geometry.kind)
    except InputError as err:
        raise InputError(
            f"--precisions writes all of them at the opset of {exported.path}, but {err}, and "
            "export that file again"
        ) from err


def _dense(exported: ExportedModel, checkpoint: Checkpoint | None) -> onnx.ModelProto:
    """The dense model in float32: of weights that no precision has rounded, where they are known.

    Raises:
        LtmpError: The weights do not make a model.
    """
    if checkpoint is None:
        return dense_baseline(exported)
    return to_onnx(
        replace(checkpoint, plan=dense_plan(checkpoint.geometry.depth)),
        opset=exported.opset,
        batch_size=interface.fixed_batch(exported.proto),
        outputs=exported.outputs or None,
    )


def _label(baseline: str | Path) -> str:
    """A file that happens to be called "dense" is not the dense model."""
    return (
        f"./{baseline}" if isinstance(baseline, Path) and str(baseline) == DENSE else str(baseline)
    )


def _origin(exported: ExportedModel, path: Path, base: Path | None) -> Checkpoint:
    """The checkpoint an exported file comes from, loaded as it was for the export.

    Raises:
        InputError: It comes from another one.
    """
    from ltmp_export.checkpoint.load import load_checkpoint
    from ltmp_export.commands import belonging

    stated = belonging.as_exported(exported, path, Choices(base_checkpoint=base))
    if not belonging.is_source(exported, path):
        raise InputError(
            f"{exported.path} was exported from another file than {path}; give the checkpoint it "
            "was exported from"
        )
    return belonging.as_in_file(exported, load_checkpoint(path, stated))
