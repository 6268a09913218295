"""What an export, and the demo, did, in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from ltmp_export.precision.formats import FP32
from ltmp_export.reports.bench import bench_summary
from ltmp_export.reports.check import budget_line, check_summary
from ltmp_export.reports.tables import COLOURS, no_less

if TYPE_CHECKING:
    from ltmp_export.commands.demo import DemoReport
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
    cost += no_less(report.macs_share)
    if report.budget is None:
        tokens = " ".join(map(str, report.tokens or ()))
        where = "the MLP of each block runs on" if report.restores else "tokens after each block"
        return Text(f"static: every image takes {cost}; {where} {tokens}")
    keep, images, fitting = report.budget
    line = f"static: every image takes {cost}; each block keeps at most {' '.join(map(str, keep))}"
    if images:
        line += f"; {fitting} of {images} images fit"
        line += "" if fitting == images else ", the others lose their least important tokens"
    return Text(line)


def demo_summary(report: DemoReport) -> RenderableType:
    """The check and bench tables and what they mean, in a few lines."""
    bench = report.bench
    saved, speedup = 1 - bench.gmacs / bench.dense_gmacs, bench.speedup(1)
    if speedup is None or bench.accuracy is None or bench.baseline_accuracy is None:
        raise ValueError("the demo times labelled images against the dense model")
    story = (
        f"What happened: a ViT fine-tuned with LTMP on handwritten digits became "
        f"{report.export.output}. It drops {saved:.0%} of the multiply-accumulates, and is "
        f"{speedup:.2f} times as fast as the dense model of the same weights, with "
        f"{bench.accuracy:.1%} of the digits right against {bench.baseline_accuracy:.1%}. "
        f"Each image keeps its own number of tokens, also inside a batch. "
        f"Next: ltmp inspect {report.export.output}"
    )
    if not report.check.passed():
        story = f"The check failed: do not use {report.export.output}, and report this."
    return Group(
        export_summary(report.export),
        check_summary(report.check, blocks=False),
        bench_summary(bench, compact=True),
        Text(story),
    )
