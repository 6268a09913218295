"""What a training or a calibration came to, in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from ltmp_export.pipeline import FinetuneReport
from ltmp_export.reports.tables import add_row, new_table


def finetune_summary(report: FinetuneReport) -> RenderableType:
    """The thresholds, what they leave of the work, and what that does to accuracy."""
    return Group(
        threshold_table(report.thresholds, report.tokens),
        Text(
            f"{report.mac_ratio:.1%} of the dense multiply-accumulates (target "
            f"{report.target:.1%} of the blocks'), top-1 {report.accuracy:.1%}, dense "
            f"{report.dense_accuracy:.1%}, on {report.held_out} images held out"
        ),
        Text(
            f"{report.output}: {report.family}, {report.steps} steps, {report.seconds:.0f} s; "
            f"history in {report.history}"
        ),
        Text(f"Next: ltmp export {report.output}"),
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
