"""Is the exported file the model of the checkpoint? Decisions first, then numbers, image by image.

The file's decisions (who merges, into whom, who stays) are read from its named tensors, and the
reference, in float64, is made to take the same ones: so every block and the logits stay comparable,
and each decision that the reference would take otherwise has a true distance from its threshold.
Verdict of one image in one batch:

    equal         the reference takes every decision alike, and all numbers agree
    borderline    all numbers agree under the file's decisions, and each decision that differs is
                  as near to its threshold as rounding explains
    fail          a decision that is not, a number that differs, or a NaN in the file
    inconclusive  the reference gives no number to compare with: the image leads to a NaN

In lower precision the reference is the model that the file states, see `precision.eager`, and
takes its integers, too; how near that model is to the checkpoint's in float32 is judged by
`lower_precision`. A file whose float16 tensors have no room for their numbers fails before all
that, see `calibration.halves`.

What rounding explains is measured, see `parity.limits`. Batch invariance is judged beside that, by
the file alone: an image in a batch must come out as it does by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from ltmp_export.calibration import halves
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import ExportError
from ltmp_export.graph import interface
from ltmp_export.images.inputs import Images
from ltmp_export.parity import lower_precision, stored, taps
from ltmp_export.parity import report as check_report
from ltmp_export.parity.computed import Computed, Here, lacking
from ltmp_export.parity.invariance import invariance
from ltmp_export.parity.judge import judge_all
from ltmp_export.parity.limits import limits
from ltmp_export.parity.replay import Observation, Observer
from ltmp_export.parity.report import CheckReport, Invariance
from ltmp_export.parity.runs import runs
from ltmp_export.parity.summaries import summaries
from ltmp_export.plan.linears import rounded
from ltmp_export.plan.plan import Plan
from ltmp_export.precision.formats import FP32, Precision
from ltmp_export.progress import Progress, silent
from ltmp_export.runtimes import saturation

BATCH_SIZES = (1, 2, 7)


def compare(
    model: onnx.ModelProto,
    checkpoint: Checkpoint,
    images: Images,
    *,
    batch_sizes: Sequence[int] | None = None,
    name: str | Path = "model",
    warnings: Sequence[str] = (),
    stated: Plan | None = None,
    precision: Precision | None = None,
    beside: Mapping[str, NDArray[Any]] | None = None,
    computed: Computed | None = None,
    outputs_alone: bool = False,
    progress: Progress = silent,
) -> CheckReport:
    """Run the file and the reference from the checkpoint, and compare.

    Each batch size runs over all images in turn; the last batch is filled up with the first images,
    so that every batch has the size asked for. Every image is run alone as well, and in the largest
    batches reversed, where that is run here.

    Args:
        model: The exported model.
        checkpoint: What it should be the model of.
        images: What to run.
        batch_sizes: Images in a batch; all that the model takes of 1, 2 and 7 by default.
        name: The model's file.
        warnings: What looks wrong already.
        stated: The steps that the file's metadata state, if it has any.
        precision: That they state, float32 by default.
        beside: Weights that a float32 model only refers to, see `graph.detached.detach`.
        computed: What runs or ran the file; onnxruntime on the CPU by default.
        outputs_alone: Whether a file that lacks inner tensors is judged by its outputs alone.
        progress: Called with a few words as each image begins.

    Raises:
        InputError: A batch size is below 1, there twice, or not one the model takes.
    """
    if batch_sizes is None:
        batch_sizes = default_batch_sizes(model)
    precision = precision or Precision()
    interface.require_batches(model, str(name), batch_sizes)
    computed = computed or Here(model, beside)
    passes = runs(batch_sizes, computed.reverses)
    report = replace(
        _nothing_compared(model, checkpoint, images, precision),
        model=str(name),
        warnings=tuple(warnings),
        runtime=computed.told,
    )
    wanted = taps.names(checkpoint.plan, precision, rounded(checkpoint.geometry))
    if missing := interface.missing_tensors(model, wanted):
        report = _without_taps(report, model, checkpoint.plan, missing)
        if report.verdict == "fail" or not outputs_alone:
            return report
    if not len(images):
        return report
    try:
        if reason := halves.overflow(model, images, progress):
            return replace(report, verdict="fail", reason=reason)
        observer = Observer(model, checkpoint, images, passes, precision, beside, computed)
        seen = _observed(observer, progress)
    except ExportError as err:
        return replace(report, verdict="fail", reason=str(err), runtime=computed.told)
    report = replace(report, runtime=computed.told)
    limited = computed.why_outputs_only
    if limited:
        told = (*report.warnings, f"only outputs are compared: {limited}")
        report = replace(report, warnings=told, proved_at=check_report.OUTPUTS)
    reason = (
        stored.other_step(stated, checkpoint.plan)
        or stored.other_threshold(model, checkpoint.plan)
        or stored.other_weights(
            model, checkpoint, precision, report.products, bool(report.saturates), beside
        )
    )
    return _judged(report, seen, images, checkpoint.plan, precision, reason)


def _judged(
    report: CheckReport,
    seen: Sequence[Observation],
    images: Images,
    plan: Plan,
    precision: Precision,
    reason: str,
) -> CheckReport:
    """The report with its verdict; `reason` is what is wrong with what the file stores, or ""."""
    allowed = limits(seen, precision)
    comparisons = judge_all(seen, images, allowed)
    in_batches: tuple[Invariance, ...] = ()
    if precision.batch_invariant:
        in_batches = tuple(invariance(seen, comparisons, allowed))
    verdict = "fail" if reason else check_report.worst([*comparisons, *in_batches])
    found = None
    if precision.kind != FP32:
        found = lower_precision.summarise(precision.kind, [o.distance for o in seen if o.distance])
        if verdict in ("equal", "borderline"):
            reason = found.fault(precision.kind)
            verdict = "fail" if reason else check_report.BOUNDED
    inside = report.proved_at == check_report.DECISIONS
    return replace(
        report,
        verdict=verdict,
        reason=reason,
        comparisons=tuple(comparisons),
        invariance=in_batches,
        fidelity=found,
        blocks=tuple(summaries(plan, seen, allowed)) if inside else (),
    )


def _nothing_compared(
    model: onnx.ModelProto, checkpoint: Checkpoint, images: Images, precision: Precision
) -> CheckReport:
    """The report before anything is run."""
    products = saturation.products(model)
    return CheckReport(
        verdict="inconclusive",
        reason="nothing was compared, which proves nothing; give at least one image",
        model="model",
        checkpoint=str(checkpoint.path),
        images=images.origin,
        comparisons=(),
        keep_tokens=checkpoint.plan.keep,
        precision=precision.kind,
        products=products,
        saturates=None if products is None else saturation.saturates_here(),
    )


def _observed(observer: Observer, progress: Progress) -> list[Observation]:
    """Every image in every run."""
    seen: list[Observation] = []
    for number in range(len(observer.images)):
        progress(f"comparing image {number + 1} of {len(observer.images)}")
        seen += observer.observe(number)
    return seen


def default_batch_sizes(model: onnx.ModelProto) -> tuple[int, ...]:
    """1, 2 and 7, or the only one that the model takes."""
    fixed = interface.fixed_batch(model)
    return BATCH_SIZES if fixed is None else (fixed,)


def _without_taps(
    report: CheckReport, model: onnx.ModelProto, plan: Plan, missing: Sequence[str]
) -> CheckReport:
    """The report on a file whose decisions cannot be read."""
    words = {entry.key: entry.value for entry in model.metadata_props}
    family = words.get("ltmp.family", plan.family)
    if family != plan.family:
        reason = f"the file's blocks take the steps of {family}, the checkpoint's of {plan.family}"
        return replace(report, verdict="fail", reason=reason)
    return replace(report, reason=f"nothing was compared: {lacking(missing)}")
