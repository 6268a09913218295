"""Time over the tokens an image keeps, as text and as a picture; and a sweep over targets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from ltmp_export.reports import plotted
from ltmp_export.reports.tables import add_row, figure, new_table
from ltmp_export.timing.contenders import DENSE, REDUCED
from ltmp_export.timing.report import BenchReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ltmp_export.commands.calibrate import CalibrateReport

BINS = 6
WIDTH = 40  # characters of the longest bar


def tokens_plot(report: BenchReport) -> Table:
    """Bars of the time of images alone, in bins of the tokens they keep; then the dense one.

    Of each bin the median over its images' best times is shown. Empty where no batch of one image
    was timed.
    """
    timing = report.timing(REDUCED, 1)
    table = new_table("tokens kept", "images", "best ms", left=1)
    table.add_column("", no_wrap=True)
    if timing is None:
        return table
    tokens, times = np.array(report.mean_tokens), np.array(timing.per_image)
    rows = [
        (f"{low:.0f} to {high:.0f}", str(len(index)), float(np.median(times[index])))
        for low, high, index in bins(tokens, BINS)
    ]
    dense = report.timing(DENSE, 1) if report.baseline == DENSE else None
    if dense is not None:
        rows.append((f"{report.initial_tokens} (dense)", str(len(times)), dense.best))
    longest = max(value for *_, value in rows)
    for where, count, value in rows:
        add_row(table, where, count, figure(value), "#" * max(1, round(WIDTH * value / longest)))
    return table


def bins(
    tokens: np.ndarray[tuple[int, ...], np.dtype[np.float64]], count: int
) -> list[tuple[float, float, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]]:
    """Bins of equal width over the tokens of images: their ends, and the images in each.

    Bins are whole tokens wide at least; those without an image are left out.
    """
    low = float(np.floor(tokens.min()))
    width = max(1.0, float(np.ceil((tokens.max() - low) / count)))
    places = np.minimum((tokens - low) // width, count - 1).astype(int)
    return [
        (low + place * width, low + (place + 1) * width, np.flatnonzero(places == place))
        for place in np.unique(places)
    ]


def bench_plot(report: BenchReport, path: Path) -> bytes:
    """Time over tokens of each image or batch, a panel for each batch size.

    With the line of the dense model, and what the saved multiply-accumulates alone would give.

    Args:
        report: What was measured.
        path: A name with the ending of what is drawn, see `plotted.require_plot`.
    """
    sizes = report.batch_sizes
    with plotted.drawn(1.0 + 5.6 * len(sizes), 4.6) as canvas:
        panels = canvas.subplots(1, len(sizes), squeeze=False, sharex=True, sharey=True)[0]
        highest = max(_panel(axes, report, size) for axes, size in zip(panels, sizes, strict=True))
        panels[0].set_ylim(0, 1.35 * highest)  # room for the legends
        panels[0].set_ylabel("time per image (ms), best of the rounds")
        where = f"{report.provider}, {report.threads} threads"
        plotted.entitle(canvas, f"{report.model}: {report.images}, {where}")
        return plotted.written(canvas, path)


def sweep_plot(report: CalibrateReport, path: Path) -> bytes:
    """What several targets do to the classes, and to the tokens of each block.

    Args:
        report: What was measured.
        path: As of `bench_plot`.
    """
    with plotted.drawn(11.4, 4.6) as canvas:
        classes, tokens = canvas.subplots(1, 2)
        left = [row.mac_ratio for row in report.rows]
        cost = "multiply-accumulates"
        if report.latency is not None:
            left, cost = [row.share for row in report.latency.rows], "time"
        pairs = sorted(zip(left, report.rows, strict=True), key=lambda pair: pair[0])
        work, rows = [share for share, _ in pairs], [row for _, row in pairs]
        agrees = "agrees with the dense model"
        if report.knn is not None:
            agrees = "cosine of features with the dense model's"
        classes.plot(work, [row.agreement for row in rows], "o-", label=agrees)
        if report.dense_accuracy is not None:
            dense = "top-1 right, dense"
            classes.plot(work, [row.accuracy for row in rows], "s-", label="top-1 right")
            classes.axhline(report.dense_accuracy, color=plotted.RED, ls="--", label=dense)
        classes.set_ylabel("images held out (share)" if report.knn is None else "share, or cosine")
        classes.set_xlabel(f"{cost} (share of the dense model's)")
        for share, row in reversed(pairs):
            label = f"{share:.2f}"
            tokens.plot(range(len(row.tokens)), row.tokens, "o-", ms=4, label=label)
        tokens.set_ylabel("tokens after the block (mean over images)")
        tokens.set_xlabel("block (number, from 0)")
        tokens.set_ylim(bottom=0)
        tokens.legend(title="MACs" if report.latency is None else "time", fontsize="small")
        classes.legend(fontsize="small")
        for axes in (classes, tokens):
            axes.grid(alpha=0.3)
        held = f"{report.held_out} images held out"
        plotted.entitle(canvas, f"{report.family}, by {report.method}: {held}")
        return plotted.written(canvas, path)


def _panel(axes: Axes, report: BenchReport, size: int) -> float:
    """One batch size; returns the highest value drawn."""
    timing = report.timing(REDUCED, size)
    if timing is None:
        raise ValueError(f"the report has no times of batch {size}")
    tokens = np.array(report.per_run(report.mean_tokens, size))
    times = np.min(timing.samples, axis=0)
    label = "this file, one image" if size == 1 else f"this file, a batch of {size}"
    axes.scatter(tokens, times, s=22, alpha=0.75, label=label, zorder=3)
    highest = float(times.max())
    dense = report.timing(DENSE, size) if report.baseline == DENSE else None
    if dense is not None:
        axes.axhline(dense.best, color=plotted.RED, label=f"dense: {figure(dense.best)} ms")
        work = np.array(report.per_run(report.image_gmacs, size))
        ideal, order = work / report.dense_gmacs * dense.best, np.argsort(tokens)
        text = "ideal: share of the dense MACs left"
        axes.plot(tokens[order], ideal[order], "--", color=plotted.GREEN, label=text)
        highest = max(highest, dense.best)
    axes.set_xlabel("tokens kept (mean over the blocks)")
    axes.set_title(f"batch {size}", fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", fontsize="small")
    return highest
