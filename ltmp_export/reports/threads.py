"""What was found of the numbers of threads that were tried."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from ltmp_export.reports.tables import add_row, figure, new_table
from ltmp_export.timing import threads
from ltmp_export.timing.contenders import REDUCED
from ltmp_export.timing.report import BenchReport


def counted(count: int) -> str:
    """So many threads, in words."""
    return f"{count} thread{'' if count == 1 else 's'}"


def threads_summary(report: BenchReport) -> RenderableType:
    """Milliseconds by model, batch and threads, and which is best for whom."""
    found = report.threads_tried
    counts = tuple(dict.fromkeys(one.threads for one in found))
    table = new_table("batch", "ms with", *map(counted, counts), left=2, folding=("ms with",))
    times = {(one.batch_size, one.model, one.threads): one.best for one in found}
    for size in report.batch_sizes:
        for model in dict.fromkeys(one.model for one in found):
            cells = (figure(times.get((size, model, count))) for count in counts)
            add_row(table, str(size), model, *cells)
    return Group(table, Text(_line(report)))


def _line(report: BenchReport) -> str:
    """The best count, and whether the baseline would rather have another one."""
    line = f"best for this model: {counted(report.threads)}, as timed here"
    others = {one.model for one in report.threads_tried} - {REDUCED}
    for other in sorted(others):
        count = threads.best(report.threads_tried, other)
        if count != report.threads:
            line += f"; best for {other}: {counted(count)}"
    return line
