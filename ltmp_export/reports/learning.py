"""What a training, a calibration or an evaluation came to, in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from ltmp_export.reports.tables import add_row, figure, new_table
from ltmp_export.reports.times import LATENCY_COLUMNS, latency_cells, latency_lines

if TYPE_CHECKING:
    from ltmp_export.commands.calibrate import CalibrateReport
    from ltmp_export.commands.eval import EvalReport
    from ltmp_export.commands.finetune import FinetuneReport
    from ltmp_export.parity.drift import Drifted


def finetune_summary(report: FinetuneReport) -> RenderableType:
    """The tokens, thresholds if there are any, what is left of the work, and of the accuracy."""
    asked = "" if report.target is None else f" (target {report.target:.1%} of the blocks')"
    if report.time_share is not None:
        asked = f", {report.time_share:.1%} of its time is predicted (target {report.target:.1%})"
    return Group(
        threshold_table(report.thresholds, report.tokens),
        Text(
            f"{report.mac_ratio:.1%} of the dense multiply-accumulates{asked}, top-1 "
            f"{report.accuracy:.1%}, dense {report.dense_accuracy:.1%}, on {report.held_out} "
            "images held out"
        ),
        Text(
            f"{report.output}: {report.family}, {report.steps} steps, {report.seconds:.0f} s; "
            f"history in {report.history}"
        ),
        Text(f"Next: ltmp export {report.output} {report.options}".rstrip()),
    )


def threshold_table(
    thresholds: Mapping[str, Sequence[float]], tokens: Sequence[float]
) -> RenderableType:
    """A row for each block, with the mean tokens after it."""
    table = new_table("block", *(f"{kind} threshold" for kind in thresholds), "tokens")
    for block, values in enumerate(zip(*thresholds.values(), tokens, strict=True)):
        *numbers, left = values
        add_row(table, str(block), *(f"{number:.6f}" for number in numbers), f"{left:.1f}")
    return table


def calibrate_summary(report: CalibrateReport) -> RenderableType:
    """The thresholds of one target, or a row for each of several."""
    halves = f"measured on {report.held_out} images held out ({report.images})"
    if report.calibration:
        halves = f"scores of {report.calibration} images, {halves}"
    parts = [sweep_table(report), Text(f"{report.family}, by {report.method}: {halves}")]
    if report.latency is not None:
        parts += latency_lines(report.latency)
    if report.dense_accuracy is not None:
        parts.append(Text(f"dense {_by(report.knn)}top-1 on these: {report.dense_accuracy:.1%}"))
    if report.output is not None:
        (row,) = report.rows
        parts.insert(0, threshold_table(row.thresholds, row.tokens))
        parts.append(Text(f"{report.output}: written in {report.seconds:.0f} s"))
        options = "" if report.latency is None else report.latency.table.options
        parts.append(Text(f"Next: ltmp export {report.output} {options}".rstrip()))
    return Group(*parts)


def sweep_table(report: CalibrateReport) -> RenderableType:
    """A row for each target."""
    labelled = report.dense_accuracy is not None
    agrees, right = "agrees with dense", "top-1"
    if report.knn is not None:
        agrees, right = "cosine with dense", f"{report.knn}-NN top-1"
    times = [] if report.latency is None else LATENCY_COLUMNS
    accuracy = [right] if labelled else []
    table = new_table("target", *times, "MACs", agrees, *accuracy, "tokens after each block")
    for number, row in enumerate(report.rows):
        accuracy = [] if row.accuracy is None else [f"{row.accuracy:.1%}"]
        tokens = " ".join(f"{count:.0f}" for count in row.tokens)
        agreement = f"{row.agreement:.1%}" if report.knn is None else f"{row.agreement:.4f}"
        timed = [] if report.latency is None else latency_cells(report.latency.rows[number])
        cells = (*timed, f"{row.mac_ratio:.1%}", agreement, *accuracy, tokens)
        add_row(table, f"{row.target:.3g}", *cells)
    return table


def _by(knn: int | None) -> str:
    """How classes are told, if not by a classifier."""
    return "" if knn is None else f"{knn}-NN "


def eval_summary(report: EvalReport) -> RenderableType:
    """Accuracy, work and tokens."""
    table = new_table("block", "tokens", "fewest", "most")
    rows = zip(report.tokens, report.fewest, report.most, strict=True)
    for block, (mean, fewest, most) in enumerate(rows):
        add_row(table, str(block), f"{mean:.1f}", str(fewest), str(most))
    return Group(
        table,
        Text(
            f"{report.model}: {report.family}, {_told(report)} on {report.count} images "
            f"({report.images})"
        ),
        Text(
            f"{figure(report.gmacs)} GMACs an image, {report.mac_ratio:.1%} of the dense "
            f"{figure(report.dense_gmacs)}; {report.runtime}, {report.seconds:.1f} s"
        ),
        *map(_drift, report.drift),
    )


def _drift(found: Drifted) -> Text:
    """New images against a baseline, in one of its kinds."""
    first = f", the first {found.first}" if found.drifted else ""
    return Text(
        f"{'drift' if found.drifted else 'no drift'} of {found.kind}: {found.beyond:.1%} of the "
        f"images beyond the baseline (expected {found.expected:.1%}, allowed {found.allowed:.1%})"
        f"{first}"
    )


def _told(report: EvalReport) -> str:
    """Accuracy, and how near features are to the dense model's, as far as there is either."""
    told = []
    if report.cosine is not None:
        told.append(f"cosine with dense {report.cosine:.4f} (least {report.least_cosine:.4f})")
    if report.top1 is not None:
        by = _by(report.knn)
        told.append(f"{by}top-1 {report.top1:.2%}, {by}top-5 {report.top5:.2%}")
    if report.references is not None:
        told.append(f"neighbours from {report.references}")
    return ", ".join(told)
