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

What rounding explains is measured: `BOUND_FACTOR` times the largest difference of a score of the
same step that both sides decide alike, over all images; see `check_report`. Batch invariance is
judged beside that, by the file alone: an image in a batch must come out as it does by itself.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from ltmp_export import check_report, runtime, taps
from ltmp_export.check_report import (
    BOUND_FACTOR,
    LEAST_BOUND,
    MOST_BOUND,
    TOLERANCES,
    CheckReport,
    Comparison,
    Flip,
    Invariance,
    StepSummary,
)
from ltmp_export.checkpoint import Checkpoint
from ltmp_export.deviations import BlockDeviation, logit_difference
from ltmp_export.errors import ExportError
from ltmp_export.inputs import Images
from ltmp_export.observation import ALONE, Observation, Observer, runs
from ltmp_export.plan import Plan

BATCH_SIZES = (1, 2, 7)

Bounds = Mapping[tuple[int, int], float]  # by block and place of the step in it


def compare(
    model: onnx.ModelProto,
    checkpoint: Checkpoint,
    images: Images,
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    name: str | Path = "model",
    warnings: Sequence[str] = (),
    progress: Callable[[str], None] = lambda words: None,
) -> CheckReport:
    """Run the file in onnxruntime and the reference from the checkpoint, and compare.

    Each batch size runs over all images in turn; the last batch is filled up with the first images,
    so that every batch has the size asked for. Every image is run alone as well, and in the largest
    batches reversed.

    Args:
        model: The exported model.
        checkpoint: What it should be the model of.
        images: What to run.
        batch_sizes: Images in a batch.
        name: The model's file.
        warnings: What looks wrong already.
        progress: Called with a few words as each image begins.

    Raises:
        InputError: A batch size is below 1 or there twice.
    """
    passes = runs(batch_sizes)
    report = CheckReport(
        verdict="inconclusive",
        reason="nothing was compared, which proves nothing; give at least one image",
        model=str(name),
        checkpoint=str(checkpoint.path),
        images=images.origin,
        comparisons=(),
        warnings=tuple(warnings),
    )
    if missing := runtime.missing_tensors(model, taps.names(checkpoint.plan)):
        return _without_taps(report, model, checkpoint.plan, missing)
    if not len(images):
        return report
    seen: list[Observation] = []
    try:
        observer = Observer(model, checkpoint, images, passes)
        for number in range(len(images)):
            progress(f"comparing image {number + 1} of {len(images)}")
            seen += observer.observe(number)
    except ExportError as err:
        return replace(report, verdict="fail", reason=str(err))
    measured = _measured(seen)
    bounds = {k: min(max(BOUND_FACTOR * v, LEAST_BOUND), MOST_BOUND) for k, v in measured.items()}
    comparisons = [_judge(one, images, bounds) for one in seen]
    for index, other in _exchanged(seen, comparisons):
        hint = f"; its logits are those of {images.names[other]}"
        comparisons[index] = replace(comparisons[index], reason=comparisons[index].reason + hint)
    invariance = tuple(_invariance(seen, comparisons))
    reason = _other_threshold(model, checkpoint.plan)
    verdict = "fail" if reason else check_report.worst([*comparisons, *invariance])
    return replace(
        report,
        verdict=verdict,
        reason=reason,
        comparisons=tuple(comparisons),
        invariance=invariance,
        blocks=tuple(_summaries(checkpoint.plan, seen, measured, bounds)),
    )


def _without_taps(
    report: CheckReport, model: onnx.ModelProto, plan: Plan, missing: Sequence[str]
) -> CheckReport:
    """The report on a file whose decisions cannot be read."""
    words = {entry.key: entry.value for entry in model.metadata_props}
    family = words.get("ltmp.family", plan.family)
    if family != plan.family:
        reason = f"the file's blocks take the steps of {family}, the checkpoint's of {plan.family}"
        return replace(report, verdict="fail", reason=reason)
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    reason = (
        f"nothing was compared: the file lacks the named tensor {missing[0]}{more}, so its "
        "decisions cannot be read; export it again, or check it before other tools rename tensors"
    )
    return replace(report, reason=reason)


def _other_threshold(model: onnx.ModelProto, plan: Plan) -> str:
    """Which stored threshold is not the checkpoint's, or nothing.

    The scores of these images may all lie on one side of both; those of others would not.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for block, kind, name, threshold in taps.thresholds(plan):
        if name in stored:
            found = float(numpy_helper.to_array(stored[name]))
            if found != float(np.float32(threshold)):
                return (
                    f"block {block}: the {kind} threshold is {found:.9g} in the file, "
                    f"{threshold:.9g} in the checkpoint"
                )
    return ""


def _measured(seen: Sequence[Observation]) -> dict[tuple[int, int], float]:
    """Largest score difference over undisputed tokens, for each step of each block.

    An image whose scores there are wrong altogether tells nothing about rounding.
    """
    found: dict[tuple[int, int], float] = defaultdict(float)
    for one in seen:
        for block, at in enumerate(one.deviation.blocks):
            for place, step in enumerate(at.steps):
                right = step.largest is None or step.largest.difference <= TOLERANCES["scores"]
                found[block, place] = max(found[block, place], step.undisputed if right else 0.0)
    return found


def _judge(one: Observation, images: Images, bounds: Bounds) -> Comparison:
    """The verdict of one image in one run."""
    flips = tuple(
        Flip(decision, bounds[block, place])
        for block, at in enumerate(one.deviation.blocks)
        for place, step in enumerate(at.steps)
        for decision in step.flips
    )
    verdict, block, where, reason = "equal", None, "", ""
    fault = next(_faults(one, bounds), None)
    if not np.isfinite(one.replay_logits).all():
        verdict, where = "inconclusive", "reference"
        reason = "NaN or infinite logits in the reference itself: nothing to compare with"
    elif fault is not None:
        verdict, (block, where, reason) = "fail", fault
    elif flips:
        verdict, block = "borderline", flips[0].decision.block
        where, more = f"block {block}", f"; {len(flips)} decisions in all" if flips[1:] else ""
        reason = f"{where}: {flips[0].describe()}{more}"
    margins = [
        (step.margin, number)
        for number, at in enumerate(one.deviation.blocks)
        for step in at.steps
        if step.margin < math.inf
    ]
    margin, margin_block = min(margins, default=(math.inf, None))
    return Comparison(
        image=images.names[one.number],
        group=images.groups[one.number],
        batch_size=one.run.size,
        order=one.run.order,
        verdict=verdict,
        where=where,
        block=block,
        reason=reason,
        counts=one.counts,
        expected_counts=one.expected_counts,
        flips=flips,
        logit_error=one.deviation.logits,
        top1=int(np.argmax(one.logits)),
        expected_top1=int(np.argmax(one.expected_logits)),
        margin=margin,
        margin_block=margin_block,
    )


Fault = tuple[int | None, str, str]  # block, where, reason


def _faults(one: Observation, bounds: Bounds) -> Iterator[Fault]:
    """What is wrong with one image, in the order of the computation."""
    found = one.deviation
    if not found.embedded <= TOLERANCES["tokens"]:
        yield None, "embedding", f"embedding: the tokens {_differ(found.embedded, 'tokens')}"
    for number, block in enumerate(found.blocks):
        for words in _block_faults(number, block, bounds):
            yield number, f"block {number}", f"block {number}: {words}"
    if one.broken:
        number = len(found.blocks)
        yield number, f"block {number}", f"block {number}: broken decisions: {one.broken}"
    if not found.logits <= TOLERANCES["logits"]:
        words = f"with the same decisions the logits {_differ(found.logits, 'logits')}"
        yield None, "head", f"head: {words}"
    counts_differ = one.stated is not None and tuple(one.stated) != one.counts
    if counts_differ or one.counts != one.replay_counts:
        yield None, "head", "the file's token counts are not those of its own decisions"
    apart = logit_difference(one.logits, one.tapped_logits)
    if not apart <= TOLERANCES["alone"]:
        yield None, "head", f"the file's logits change by {apart:.1e} when its tensors are read"


def _block_faults(number: int, block: BlockDeviation, bounds: Bounds) -> Iterator[str]:
    for place, step in enumerate(block.steps):
        off = step.largest
        if off is not None and not off.difference <= TOLERANCES["scores"]:
            yield (
                f"the {off.what} of token {off.token} is {off.score:.6g} in the file, "
                f"{off.expected:.6g} in the reference; they {_differ(off.difference, 'scores')}"
            )
        bound = bounds[number, place]
        far = [flip for flip in step.flips if not flip.distance <= bound]
        if far:
            more = f"; {len(step.flips)} decisions of this step differ" if step.flips[1:] else ""
            yield far[0].describe(bound) + more
    if block.sizes:
        yield f"a token stands for {block.sizes:g} patches more or less than in the reference"
    if not block.tokens <= TOLERANCES["tokens"]:
        yield f"with the same decisions the tokens after it {_differ(block.tokens, 'tokens')}"


def _differ(error: float, kind: str) -> str:
    if math.isnan(error):
        return "hold a NaN in the file"
    return f"differ by {error:.1e} (allowed {TOLERANCES[kind]:.0e})"


def _exchanged(
    seen: Sequence[Observation], comparisons: Sequence[Comparison]
) -> Iterator[tuple[int, int]]:
    """Comparisons that fail with the logits of another image, and that image."""
    expected = {one.number: one.expected_logits for one in seen}
    for index, (one, comparison) in enumerate(zip(seen, comparisons, strict=True)):
        if comparison.verdict != "fail":
            continue
        for other, logits in expected.items():
            near = logit_difference(one.logits, logits) <= TOLERANCES["logits"]
            if near and logit_difference(expected[one.number], logits) > TOLERANCES["logits"]:
                yield index, other
                break


def _invariance(
    seen: Sequence[Observation], comparisons: Sequence[Comparison]
) -> Iterator[Invariance]:
    """Each image in each batch against the same image alone."""
    alone: dict[int, tuple[Observation, Comparison]] = {}
    for one, comparison in zip(seen, comparisons, strict=True):
        if one.run == ALONE:
            alone[one.number] = one, comparison
            continue
        single, judged = alone[one.number]
        block = _first_other_block(single, one)
        error = logit_difference(one.logits, single.logits)
        verdicts = {judged.verdict, comparison.verdict}
        verdict, reason = "equal", ""
        if "inconclusive" in verdicts:
            verdict, reason = "inconclusive", comparison.reason or judged.reason
        elif block is not None:
            verdict = "fail" if "fail" in verdicts else "borderline"
            reason = f"block {block}: other decisions in the batch than alone"
        elif not error <= TOLERANCES["alone"]:
            verdict, reason = "fail", f"the logits {_differ(error, 'alone')}"
        yield Invariance(
            image=comparison.image,
            group=comparison.group,
            batch_size=one.run.size,
            order=one.run.order,
            verdict=verdict,
            block=block,
            reason=reason,
            logit_error=error,
        )


def _first_other_block(a: Observation, b: Observation) -> int | None:
    """First block in which two observations of an image hold different decisions."""
    for block, (ours, theirs) in enumerate(zip(a.choices, b.choices, strict=False)):
        if taps.digest((ours,)) != taps.digest((theirs,)):
            return block
    shorter = min(len(a.choices), len(b.choices))
    return None if len(a.choices) == len(b.choices) else shorter


def _summaries(
    plan: Plan,
    seen: Sequence[Observation],
    measured: Mapping[tuple[int, int], float],
    bounds: Bounds,
) -> Iterator[StepSummary]:
    """A row for each step of each block that was reached."""
    for block, steps in enumerate(plan.blocks):
        reached = [one for one in seen if block < len(one.deviation.blocks)]
        for place in range(len(steps) if reached else 0):
            found = [(one.number, one.deviation.blocks[block].steps[place]) for one in reached]
            largest = [step.largest.difference for _, step in found if step.largest is not None]
            yield StepSummary(
                block=block,
                step=found[0][1].step,
                threshold=found[0][1].threshold,
                margin=min(step.margin for _, step in found),
                flips=sum(len(step.flips) for _, step in found),
                flipped_images=len({number for number, step in found if step.flips}),
                measured=measured[block, place],
                bound=bounds[block, place],
                score_error=max(largest, default=0.0),
                token_error=max(one.deviation.blocks[block].tokens for one in reached),
            )
