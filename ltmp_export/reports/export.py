"""What an export did, in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from ltmp_export.precision.formats import FP32
from ltmp_export.reports.check import budget_line
from ltmp_export.reports.tables import COLOURS, gain

if TYPE_CHECKING:
    from ltmp_export.commands.export import ExportReport


def export_summary(report: ExportReport) -> RenderableType:
    """One line on the file, one on the check."""
    size = report.bytes / 1e6
    lines = [
        Text(
            f"{report.output}: {report.family} {report.architecture}, opset {report.opset}, "
            f"{'any batch' if report.batch_size is None else 'single images'}, "
            f"{size:.1f} MB, {report.seconds:.1f} s"
        )
    ]
    if report.precision.kind != FP32:
        lines.append(Text(f"precision: {report.precision.describe()}"))
    if (static := _static_line(report)) is not None:
        lines.append(static)
    if report.data is not None:
        lines.append(Text(f"its weights are in {report.data.name}, which must stay beside it"))
    if report.check is None:
        lines.append(Text("not checked (--no-check); run 'ltmp check' before deploying", "yellow"))
    else:
        images = len({c.image for c in report.check.comparisons})
        sizes = ", ".join(map(str, dict.fromkeys(c.batch_size for c in report.check.comparisons)))
        line = Text("check: ").append(report.check.verdict, COLOURS[report.check.verdict])
        where = f" on {images} images ({report.check.images}) at batches {sizes}"
        lines.append(line.append(where))
        if report.budget is not None:
            lines.append(budget_line(report.check))
    return Group(*lines)


def _static_line(report: ExportReport) -> Text | None:
    """What a static file costs, or None for a dynamic one."""
    if report.macs_share is None:
        return None
    cost = f"{report.macs_share:.1%} of the dense multiply-accumulates"
    cost += gain(report.macs_share, report.outgoing, (report.tokens or (0,))[-1])
    if report.budget is None:
        tokens = " ".join(map(str, report.tokens or ()))
        behind = report.restores or report.outgoing is not None
        where = "the MLP of each block runs on" if behind else "tokens after each block"
        return Text(f"static: every image takes {cost}; {where} {tokens}")
    keep, images, fitting = report.budget
    line = f"static: every image takes {cost}; each block keeps at most {' '.join(map(str, keep))}"
    if images:
        line += f"; {fitting} of {images} images fit"
        line += "" if fitting == images else ", the others lose their least important tokens"
    return Text(line)
