"""Methods that need no training on one model: a table, and accuracy over time as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from ltmp_export.plan.plan import DENSE
from ltmp_export.reports import plotted
from ltmp_export.reports.tables import add_row, figure, new_table
from ltmp_export.reports.threads import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ltmp_export.commands.compared import Compared, CompareReport

_MARKERS = "os^Dv<>PX*"


def methods_summary(report: CompareReport) -> RenderableType:
    """A row for each method at each target, the best first, and which to take."""
    right = "cosine" if report.dense.top1 is None else "top-1"
    times = [part for size in report.batch_sizes for part in (f"ms, batch {size}", "of dense")]
    table = new_table("target", "family", "MACs", right, *times, left=2)
    for row in report.rows:
        if not row.reason:
            add_row(table, *_cells(report, row))
    lines = [
        f"{row.target:g}: {row.family} cannot: {row.reason}" for row in report.rows if row.reason
    ]
    lines += [_best(report, target) for target in dict.fromkeys(row.target for row in report.rows)]
    return Group(table, *(Text(line) for line in (*lines, *_closing(report)) if line))


def _cells(report: CompareReport, row: Compared) -> list[str]:
    """The cells of what was measured."""
    cells = [f"{row.target:g}", row.family, f"{row.mac_ratio or 0:.1%}", _worth(row)]
    for size in report.batch_sizes:
        cells += [figure((row.milliseconds or {}).get(size)), f"{_ratio(row, size):.2f}x"]
    return cells


def _worth(row: Compared) -> str:
    return f"{row.cosine or 0:.4f}" if row.top1 is None else f"{row.top1:.1%}"


def _best(report: CompareReport, target: float) -> str:
    """Which of a target is right most often, and which is the fastest."""
    rows = [row for row in _methods(report) if row.target == target]
    if not rows:
        return ""
    best = max(row.worth for row in rows)
    told = ", ".join(row.family for row in rows if row.worth == best)
    fastest = [
        f"{one.family} at batch {size} ({_ratio(one, size):.2f}x)"
        for size in report.batch_sizes
        for one in [min(rows, key=lambda row: _ratio(row, size))]
    ]
    what = "nearest to dense" if report.dense.top1 is None else "most accurate"
    return f"{target:g}: {what} {told} ({_worth(rows[0])}); fastest {', '.join(fastest)}"


def _methods(report: CompareReport) -> list[Compared]:
    """The rows of what was measured beside the model itself."""
    return [row for row in report.rows if row.family != DENSE and not row.reason]


def _ratio(row: Compared, size: int) -> float:
    return (row.ratio or {})[size]


def _closing(report: CompareReport) -> list[str]:
    """On what it was measured."""
    lines = []
    if report.places:
        at = ",".join(map(str, report.places))
        lines.append(f"those that reduce at a few blocks do so at {at} (--merge-at)")
    noise = [n for row in report.rows for n in (row.noise or {}).values() if n]
    apart = f", runs of the same images differ by ±{max(noise):.1%} at most" if noise else ""
    machine = report.environment
    return [
        *lines,
        f"{report.checkpoint}: {report.count} images ({report.images}), onnxruntime "
        f"{machine.onnxruntime} on {machine.processor}, {counted(report.threads)}{apart}, "
        f"{report.seconds:.0f} s",
        f"Next: ltmp export {report.checkpoint} --family FAMILY --reduction-target TARGET"
        + (f" --merge-at {','.join(map(str, report.places))}" if report.places else ""),
    ]


def methods_plot(report: CompareReport, path: Path) -> bytes:
    """Accuracy over time, a panel for each batch size, a line for each method.

    Args:
        report: What was measured.
        path: A name with the ending of what is drawn, see `plotted.require_plot`.
    """
    sizes = report.batch_sizes
    with plotted.drawn(1.6 + 5.2 * len(sizes), 4.8) as canvas:
        panels: Sequence[Axes] = canvas.subplots(1, len(sizes), squeeze=False, sharey=True)[0]
        for axes, size in zip(panels, sizes, strict=True):
            _panel(axes, report, size)
        cosine = report.dense.top1 is None
        panels[0].set_ylabel(
            "cosine of features with the dense model's" if cosine else "top-1 right (share)"
        )
        panels[-1].legend(fontsize="small", loc="lower right")
        plotted.entitle(
            canvas, f"{report.checkpoint}: {report.count} images, {counted(report.threads)}"
        )
        return plotted.written(canvas, path)


def _panel(axes: Axes, report: CompareReport, size: int) -> None:
    """One batch size."""
    found = _methods(report)
    for number, family in enumerate(sorted({row.family for row in found})):
        rows = [row for row in found if row.family == family]
        rows.sort(key=lambda row: _ratio(row, size))
        style = f"{_MARKERS[number % len(_MARKERS)]}-"
        axes.plot(
            [_ratio(row, size) for row in rows], [row.worth for row in rows], style, label=family
        )
    axes.plot([1.0], [report.dense.worth], "k*", ms=11, label="dense")
    axes.set_xlabel("time (share of the dense model's)")
    axes.set_title(f"batch {size}", fontsize="medium")
    axes.grid(alpha=0.3)
