"""Times by token counts, for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from ltmp_export.plan.times import TimeModel
from ltmp_export.reports.tables import UNKNOWN, add_row, figure, new_table
from ltmp_export.timing.goal import Latency, Reached
from ltmp_export.timing.tables import FORMS, TimeTable

if TYPE_CHECKING:
    from ltmp_export.commands.time_table import TimeTableReport


def time_table_summary(report: TimeTableReport) -> RenderableType:
    """The points, and what was fitted to them."""
    table, parts = report.table, list[RenderableType]()
    parts.append(points_table(table))
    for batch, fit in zip(table.batches, report.fits, strict=True):
        parts.append(Text(f"batch {batch.size}: {fit_words(fit, batch.twins)}"))
    of = f"{table.family} in {table.precision}, {form_words(table)}"
    parts.append(Text(f"{of}; {table.where}; {table.images}"))
    return Group(*parts)


def form_words(table: TimeTable) -> str:
    """What the files take that were timed."""
    return f"files for {FORMS[table.single]}"


def points_table(table: TimeTable) -> RenderableType:
    """A row for each file that was timed."""
    made = new_table("batch", "model", "ms", "of dense", "tokens after each block", left=2)
    for batch in table.batches:
        size = str(batch.size)
        add_row(made, size, "dense", figure(batch.dense), "100%", "")
        for point in batch.points:
            tokens = " ".join(f"{load.kept:.0f}" for load in point.loads)
            share = f"{point.milliseconds / batch.dense:.0%}"
            add_row(made, size, point.label, figure(point.milliseconds), share, tokens)
    return made


def fit_words(fit: TimeModel, twins: float) -> str:
    """The numbers of a fit, and how good it is."""
    return (
        f"{figure(fit.fixed)} ms, and in each block {1e3 * (fit.received + fit.kept):.3g} µs a "
        f"token and {1e6 * fit.squared:.3g} ns a pair; off by {fit.residual:.1%} at most; the "
        f"reduction alone costs {figure(max(fit.overhead, 0.0))} ms; identical files differ by "
        f"{twins:.1%}"
    )


LATENCY_COLUMNS = ["predicted", "measured", "off", "ms"]


def latency_cells(row: Reached) -> list[str]:
    """A target's shares of the dense model's time."""
    seen = row.verified
    if seen is None or row.off is None:
        return [f"{row.predicted:.1%}", UNKNOWN, UNKNOWN, UNKNOWN]
    return [
        f"{row.predicted:.1%}", f"{seen.share:.1%}", f"{row.off:+.1%}", figure(seen.milliseconds)
    ]  # fmt: skip


def latency_lines(latency: Latency) -> list[Text]:
    """How it was measured, and what to export where no checkpoint is written."""
    table, batch = latency.table, latency.table.batch(latency.batch_size)
    where = "times of" if latency.elsewhere is None else f"times of {latency.elsewhere}:"
    lines = [
        Text(f"{where} {table.where}, {table.precision}, {form_words(table)}, batch {batch.size}"),
        Text(f"dense {figure(batch.dense)} ms; reduced {fit_words(latency.model, batch.twins)}"),
    ]
    for row in latency.rows:
        if row.verified is not None:
            lines.append(Text(f"target {row.target:.3g}: {row.verdict}{_how(row)}"))
    for row, stated, given in zip(latency.rows, latency.stated, latency.options, strict=True):
        if stated:
            what = "Next" if len(latency.rows) == 1 else f"target {row.target:.3g}"
            lines.append(Text(f"{what}: ltmp export CHECKPOINT {given}"))
    return lines


def _how(row: Reached) -> str:
    seen = row.verified
    if seen is None:
        return ""
    return (
        f", best of {seen.rounds} alternating rounds; identical files differ by {seen.twins:.1%}; "
        f"{row.trials} file{'s' * (row.trials > 1)} measured"
    )
