"""checkpoint file → Checkpoint → ONNX model → parity → file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto

from ltmp_export.calibration import budgets, halves, quantise
from ltmp_export.calibration.budgets import Budget
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.commands.pictured import take_pictures
from ltmp_export.commands.stages import calibration, closing, giving, loaded, measured_on
from ltmp_export.distributed.cluster import HERE, Place
from ltmp_export.files import disk
from ltmp_export.graph import detached
from ltmp_export.graph.targets import require_known
from ltmp_export.images.inputs import Images
from ltmp_export.model_file import external, targets
from ltmp_export.model_file.model import to_onnx, weights_of
from ltmp_export.parity import compare
from ltmp_export.parity.report import CheckReport
from ltmp_export.plan import work
from ltmp_export.precision.formats import FP16, FP32, INT8, STATIC, Precision
from ltmp_export.progress import Progress, silent
from ltmp_export.runtimes import advice, opsets
from ltmp_export.statements import wishes
from ltmp_export.statements.choices import Choices

SCHEMA_VERSION = 1
DEFAULT_OPSET = 17
QUICK_SAMPLES = 7


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Attributes:
        output: The file written.
        data: The file beside it with the weights of a model beyond 2 GB, else None.
        bytes: Size of both.
        opset: Declared version of the standard domain.
        batch_size: The only batch size it takes, or None if it takes any.
        family: Token-reduction family.
        mode: "static" where every shape but the batch is known before running, else "dynamic".
        tokens: Tokens that each block's MLP runs on, where no image has a say in it.
        restores: Whether some block has more tokens behind it than that.
        outgoing: Tokens of an image that go out, where the last step stands behind all blocks.
        macs_share: Share of the dense multiply-accumulates, where no image has a say in it.
        precision: In which numbers it computes.
        budget: What a static file of a family with thresholds may keep.
        architecture: timm name, the name the file gives itself, or "vit".
        seconds: Time taken, check included.
        check: The closing check, or None if it was switched off.
        notes: What was assumed.
        warnings: What looks wrong.
    """

    output: Path
    data: Path | None
    bytes: int
    opset: int
    batch_size: int | None
    family: str
    mode: str
    tokens: tuple[int, ...] | None
    restores: bool
    outgoing: int | None
    macs_share: float | None
    precision: Precision
    budget: Budget | None
    architecture: str
    seconds: float
    check: CheckReport | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        document = asdict(replace(self, check=None, precision=Precision())) | {
            "output": str(self.output)
        }
        document["data"] = None if self.data is None else str(self.data)
        document["precision"] = self.precision.to_json()
        document["budget"] = None if self.budget is None else self.budget._asdict()
        document["check"] = None if self.check is None else self.check.to_json()
        return document | {"schema_version": SCHEMA_VERSION, "kind": "export"}


def export(
    checkpoint: str | Path | Checkpoint,
    output: str | Path = "model.onnx",
    *,
    opset: int = DEFAULT_OPSET,
    batch_size: int | None = None,
    outputs: Sequence[str] | None = None,
    token_counts: bool = False,
    mode: str | None = None,
    keep_tokens: str | None = None,
    images: str | Path | None = None,
    samples: int | None = None,
    precision: Precision | None = None,
    calibration_images: str | Path | None = None,
    calibration_samples: int | None = None,
    place: Place = HERE,
    target: str | None = None,
    with_preprocessing: bool = False,
    check: bool = True,
    choices: Choices | None = None,
    progress: Progress = silent,
) -> ExportReport:
    """Export a checkpoint to an ONNX file that takes any batch, or single images.

    The file appears at `output` only after everything, the check included, has succeeded. The
    weights of a model beyond 2 GB go to a second file beside it, which must stay there.

    Args:
        checkpoint: File, or one loaded before (then `choices` must be None).
        output: The file to write.
        opset: Version of the standard domain, 16 to the newest onnxruntime loads.
        batch_size: 1 for a file that takes single images only and is somewhat faster for them.
        outputs: What the file gives, see `plan.outputs`: logits by default, of a model without
            classifier its features. Without logits the classifier is left out.
        token_counts: Add the output `token_counts` int64 [batch, depth].
        mode: "static" for a file in which every shape but the batch is known before running,
            "dynamic" for one in which each image keeps its own number of tokens; by default what
            the family is.
        keep_tokens: For a static file of a family with thresholds: the most tokens that each block
            keeps, `160,150,…`, or `auto:p99` for that quantile of the `images`' tokens. Images that
            need more lose the least important ones; the output `overflow` int64 [batch, depth]
            says how many.
        images: A folder of pictures or an `.npz` to measure these on.
        samples: Measure at most so many of them.
        precision: In which numbers the file computes, float32 by default; int8: of all layers.
        calibration_images: For int8 and fp16 a folder of pictures or an `.npz` like those the model
            will see; by default the embedded digits if they fit the model, else synthetic pictures.
        calibration_samples: Take at most so many of them, 128 by default.
        place: Where int8 scales are measured, here by default; a cluster finds the same.
        target: A runtime whose forms the file is to have, of `graph.targets.TARGETS`.
        with_preprocessing: The file takes `pictures` uint8 [batch, height, width, channels] of any
            size, and prepares them itself.
        check: Compare a batch of mixed images with the reference before writing.
        choices: What the checkpoint does not say.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: The checkpoint, the output path, the batch size or an output cannot be used.
        ExportError: The graph could not be written as asked.
        CheckFailedError: The graph is not the checkpoint's model; nothing is written.
    """
    started, output, precision = time.perf_counter(), Path(output), precision or Precision()
    wishes.require(
        batch_size=batch_size, outputs=outputs, mode=mode, keep_tokens=keep_tokens, images=images,
        samples=samples, precision=precision.kind, calibration_images=calibration_images,
        calibration_samples=calibration_samples, place=place,
    )  # fmt: skip
    require_known(target)
    opsets.require(opset, precision)
    source = _read(checkpoint, choices, output, opset, precision, progress)
    budget, remarks = budgets.asked(source, mode, keep_tokens, images, samples, opset, progress)
    if budget is not None:
        source = replace(source, plan=source.plan.within(budget.keep))
    gives, source = giving(source, outputs)
    quick = closing(source, calibration_images, QUICK_SAMPLES)
    model, precision, measured = _written(
        source, precision, (calibration_images, calibration_samples), quick,
        opset=opset, batch_size=batch_size, outputs=gives, token_counts=token_counts,
        place=place, progress=progress,
    )  # fmt: skip
    model, beside, doubts = _apart(model, source, precision, target, opset, budget, batch_size)
    report, sizes = None, (1, QUICK_SAMPLES) if batch_size is None else (batch_size,)
    if check:
        report = compare.compare(
            model, source, quick, batch_sizes=sizes, name=output, precision=precision,
            beside=beside, progress=progress,
        )  # fmt: skip
        report.require(precision.describe() if precision.kept else "")
    if with_preprocessing:
        report = take_pictures(model, source, opset, report)
    written, plan, vit = external.write_model(output, model, beside), source.plan, source.geometry
    return ExportReport(
        output=output,
        data=written.data,
        bytes=written.bytes,
        opset=opset,
        batch_size=batch_size,
        family=plan.family,
        mode="static" if plan.static else "dynamic",
        tokens=work.counts(vit, plan) if plan.counted else None,
        restores=plan.restores,
        outgoing=work.outgoing(vit, plan),
        macs_share=work.share(vit, plan) if plan.static else None,
        precision=precision,
        budget=budget,
        architecture=vit.name,
        seconds=time.perf_counter() - started,
        check=report,
        notes=source.notes,
        warnings=tuple(dict.fromkeys([*source.warnings, *remarks, *measured, *doubts])),
    )


def _read(
    checkpoint: str | Path | Checkpoint,
    choices: Choices | None,
    output: Path,
    opset: int,
    precision: Precision,
    progress: Progress,
) -> Checkpoint:
    """The checkpoint, if `output` can be written of it; see `export`.

    Raises:
        InputError: It cannot.
    """
    source = loaded(checkpoint, choices, progress)
    opsets.require(opset, precision, source.geometry.activation, source.geometry.kind)
    base = source.choices.base_checkpoint
    disk.require_outputs([output], [source.path, *([] if base is None else [base])])
    return source


def _apart(
    model: ModelProto, source: Checkpoint, precision: Precision, target: str | None, opset: int,
    budget: Budget | None, batch_size: int | None,
) -> tuple[ModelProto, dict[str, NDArray[Any]] | None, tuple[str, ...]]:  # fmt: skip
    """A model in a runtime's forms; in float32 without its large weights, and these.

    Those are in the checkpoint's own memory. Also what the runtime is known not to take.
    """
    targets.write_for(model, target, opset)
    doubts = advice.doubts(target, source.plan.static, budget, batch_size, precision)
    if precision.kind != FP32:
        return model, None, doubts
    return *detached.detach(model, weights_of(source)), doubts


def _written(
    source: Checkpoint,
    precision: Precision,
    given: tuple[str | Path | None, int | None],
    quick: Images,
    *,
    opset: int,
    batch_size: int | None,
    outputs: Sequence[str],
    token_counts: bool,
    place: Place,
    progress: Progress,
) -> tuple[ModelProto, Precision, list[str]]:
    """The model, its precision with what was measured on images, and what is to be said of these.

    Args:
        source: The checkpoint.
        precision: What was asked for.
        given: Images to measure on, and how many of them.
        quick: What the export checks with.
        opset: As for `model_file.model.to_onnx`; so are the next three.
        batch_size: 1 or None.
        outputs: What the file gives.
        token_counts: Whether to add that output.
        place: Where scales are measured.
        progress: Called with a few words as each stage begins.
    """
    if precision.kind == FP16:
        chosen = [quick] if given == (None, None) else [calibration(source, *given), quick]
        model, precision = halves.fitted(
            source, chosen, precision,
            opset=opset, batch_size=batch_size, outputs=outputs, token_counts=token_counts,
            progress=progress,
        )  # fmt: skip
        return model, precision, measured_on(given, "float16 ranges", chosen[0])
    doubts: list[str] = []
    if precision.kind == INT8:
        pictures = calibration(source, *given)
        source, precision = quantise.prepare(source, pictures, precision, progress, place)
        doubts += pictures.remarks
        if precision.scales == STATIC or precision.auto:
            measured = "int8 scales" if precision.scales == STATIC else "what to protect and not"
            doubts += measured_on(given, measured, pictures)
    progress("writing the graph")
    model = to_onnx(
        source, opset=opset, batch_size=batch_size, outputs=outputs, token_counts=token_counts,
        precision=precision,
    )  # fmt: skip
    return model, precision, doubts
