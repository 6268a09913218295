"""What the demo did, and what a model of real size gains on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ltmp_export.precision.formats import FP32
from ltmp_export.reports.bench import bench_summary
from ltmp_export.reports.check import check_summary
from ltmp_export.reports.export import export_summary
from ltmp_export.reports.tables import add_row, figure, new_table
from ltmp_export.reports.threads import counted
from ltmp_export.timing import noise, threads
from ltmp_export.timing.contenders import DENSE

if TYPE_CHECKING:
    from ltmp_export.commands.demo import DemoReport
    from ltmp_export.timing.real_size import RealSizeReport, Row
    from ltmp_export.timing.report import BenchReport


def demo_summary(report: DemoReport) -> RenderableType:
    """The check and bench tables and what they mean, in a few lines."""
    bench = report.bench
    if bench.accuracy is None or bench.baseline_accuracy is None:
        raise ValueError("the demo times labelled images against the dense model")
    story = [
        f"What happened: a ViT fine-tuned with LTMP on handwritten digits became "
        f"{report.export.output}. It drops {1 - bench.gmacs / bench.dense_gmacs:.0%} of the "
        f"multiply-accumulates, with {bench.accuracy:.1%} of the digits right against "
        f"{bench.baseline_accuracy:.1%}. Each image keeps its own number of tokens, also inside a "
        f"batch.",
        _speed(bench),
        f"See it: open {report.page.output} in a browser; it shows which patches became one token.",
        f"Next: ltmp inspect {report.export.output}",
    ]
    if not report.check.passed():
        story = [f"The check failed: do not use {report.export.output}, and report this."]
    return Group(
        export_summary(report.export),
        check_summary(report.check, blocks=False),
        bench_summary(bench, compact=True),
        *map(Text, story),
    )


def _speed(bench: BenchReport) -> str:
    """How fast the digits model is beside the dense one, and why it is not faster."""
    (found,) = noise.differences(bench)
    nodes = sum(bench.placement.values())
    tiny = (
        f"A model this small ({bench.dense_gmacs:.2g} GMACs dense) spends much of its time on the "
        f"fixed cost of its {nodes} operators"
    )
    best = f"ith {counted(bench.threads)}, which is best for it,"
    if not found.told:
        return (
            f"{tiny}: w{best} the times of the file and of the dense model{_elsewhere(bench)} are "
            f"{abs(found.change):.0%} apart at best and {abs(found.usual):.0%} usually, while runs "
            f"of one image differ by ±{found.noise or 0:.0%}, too near to tell which is faster."
        )
    if found.change > 0:
        return (
            f"{tiny}, of which the dense model has fewer: w{best} the file takes "
            f"{1 + found.change:.2f} times as long as the dense model{_elsewhere(bench)}."
        )
    return (
        f"W{best} the file is {1 / (1 + found.change):.2f} times as fast as the dense model of "
        f"the same weights{_elsewhere(bench)}. {tiny}; larger models gain more."
    )


def _elsewhere(bench: BenchReport) -> str:
    """What to know where the dense model is faster with other threads."""
    best = threads.best(bench.threads_tried, DENSE)
    if best == bench.threads:
        return ""
    times = {(one.model, one.threads): one.best for one in bench.threads_tried}
    share = times[DENSE, best] / times[DENSE, bench.threads]
    return f" (which is best with {counted(best)}: {share:.2f} of that time)"


def real_size_summary(report: RealSizeReport) -> RenderableType:
    """What it is about, a row for each model and batch size, and what it says."""
    machine = report.environment
    first = (
        f"And on a model of real size: {report.called} with made-up weights, which tell of speed "
        f"only. {machine.processor}, {counted(report.threads)}, onnxruntime "
        f"{machine.onnxruntime}, {report.seconds:.0f} s in all."
    )
    return Group(Text(first), _table(report), Text(_found(report)), *map(Text, _doubts(report)))


def _table(report: RealSizeReport) -> Table:
    columns = ("MACs", "best ms", "runs by", "images/s", "vs dense", "vs dense fp32")
    table = new_table("batch", "model", *columns, left=2)
    for row in report.rows:
        noisy = row.timing.noise
        add_row(
            table,
            str(row.timing.batch_size),
            f"{row.model} {row.precision}",
            f"{row.macs_share:.0%}",
            figure(row.timing.best),
            "" if noisy is None else f"±{noisy:.0%}",
            f"{row.timing.images_per_second:.1f}",
            f"{report.speedup(row):.2f}x",
            f"{report.speedup(row, FP32):.2f}x",
        )
    return table


def _found(report: RealSizeReport) -> str:
    """What the last model, the one of learned thresholds, gains at each batch size."""
    learned = [row for row in report.rows if row.model == report.rows[-1].model]
    parts = []
    for size in dict.fromkeys(row.timing.batch_size for row in learned):
        gains = (_gain(report, row) for row in learned if row.timing.batch_size == size)
        parts.append(f"at batch {size} {' and '.join(gains)}")
    share = learned[0].macs_share
    return (
        f"{learned[0].model} at {share:.0%} of the multiply-accumulates ({1 / share:.2f}x would be "
        f"ideal) against the dense model in the same numbers: {'; '.join(parts)}."
    )


def _doubts(report: RealSizeReport) -> list[str]:
    """What to know where there was no time for a second round."""
    once = dict.fromkeys(r.timing.batch_size for r in report.rows if r.timing.noise is None)
    return [
        f"Batch {size} was timed once only, since this machine is slow or busy: the figures may be "
        "far off."
        for size in once
    ]


def _gain(report: RealSizeReport, row: Row) -> str:
    return f"{report.speedup(row):.2f}x in {row.precision}"
