"""Tables of what was timed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ltmp_export.plan.outputs import FEATURES, LOGITS
from ltmp_export.precision.formats import FP32
from ltmp_export.reports.plots import tokens_plot
from ltmp_export.reports.tables import UNKNOWN, Fitting, add_row, figure, gain, new_table
from ltmp_export.reports.threads import counted, threads_summary
from ltmp_export.timing.contenders import DENSE, DENSE_INT8, EAGER, GEMMS, LITERAL, REDUCED
from ltmp_export.timing.profiling import Profile, Share
from ltmp_export.timing.report import BenchReport, Entry
from ltmp_export.timing.statistics import Timing

OPERATORS = 12  # shown of a profile


def bench_summary(report: BenchReport, compact: bool = False) -> RenderableType:
    """A row for each model and batch size, then what the images cost and what it means.

    Args:
        report: What was measured.
        compact: Leave out what images and runs differ by, and the plot.
    """
    lines = [Text(line) for line in _closing_lines(report)]
    parts: list[RenderableType] = [threads_summary(report)] if report.threads_tried else []
    if _has_precisions(report):
        parts.append(_precisions(report))
    elif any(_is_rival(report, entry.label) for entry in report.entries):
        parts.append(_side_by_side(report))
    else:
        fitting = Fitting(_times(report), _times(report, narrow=True))
        parts.append(_throughput(report) if report.scenario == "offline" else fitting)
        if not compact:
            parts.append(_spreads(report))
            parts += [tokens_plot(report)] if 1 in report.batch_sizes else []
        parts.append(_cheapest_and_dearest(report))
    if report.profile is not None:
        parts.append(_profile(report.profile))
    return Group(*parts, *lines)


def _has_precisions(report: BenchReport) -> bool:
    return any(entry.label == DENSE_INT8 for entry in report.entries)


def _is_rival(report: BenchReport, label: str) -> bool:
    return label not in (REDUCED, report.baseline, GEMMS)


def _times(report: BenchReport, narrow: bool = False) -> Table:
    """The distribution of each model's times; narrow without images a second."""
    rate = () if narrow else ("images/s",)
    columns = ("best ms", "p50", "p90", "p99", *rate, "speed-up", "efficiency")
    table = new_table("batch", "model", "GMACs", "tokens", *columns, left=2, folding=("model",))
    for timing in _main(report):
        speedup, efficiency = _ratios(report, timing)
        add_row(
            table,
            *_head(report, timing),
            *(figure(value) for value in (timing.best, *map(timing.quantile, (0.5, 0.9, 0.99)))),
            *(f"{timing.images_per_second:.1f}" for _ in rate),
            speedup,
            efficiency,
        )
    return table


def _throughput(report: BenchReport) -> Table:
    """Images a second over batch sizes."""
    columns = ("images/s", "ms per image", "ms per batch", "speed-up", "efficiency")
    table = new_table("batch", "model", "GMACs", "tokens", *columns, left=2, folding=("model",))
    for timing in _main(report):
        add_row(
            table,
            *_head(report, timing),
            f"{timing.images_per_second:.1f}",
            figure(timing.best),
            figure(timing.best * timing.batch_size),
            *_ratios(report, timing),
        )
    return table


def _side_by_side(report: BenchReport) -> Table:
    """What else one could run, at each batch size; a reason for what was not timed."""
    columns = ("best ms", "p50", "p90", "vs this file", "agrees", "peak MB")
    table = new_table("batch", "model", "runs in", *columns, left=3, folding=("model", "runs in"))
    for size in report.batch_sizes:
        this = report.timing(REDUCED, size)
        for entry in report.entries:
            timing = report.timing(entry.label, size)
            if this is not None and timing is not None:
                add_row(table, str(size), *_rival(report, entry, timing, this))
    for entry in report.entries:
        if entry.reason:
            add_row(table, UNKNOWN, entry.label, entry.engine or UNKNOWN, *[UNKNOWN] * 6)
    return table


def _rival(report: BenchReport, entry: Entry, timing: Timing, this: Timing) -> tuple[str, ...]:
    """The cells of what was timed beside this file."""
    return (
        report.model if entry.label == REDUCED else entry.label,
        entry.engine,
        *(figure(value) for value in (timing.best, timing.median, timing.quantile(0.9))),
        f"{timing.best / this.best:.2f}x",
        UNKNOWN if entry.agreement is None else f"{entry.agreement:.0%}",
        UNKNOWN if entry.peak_mb is None else f"{entry.peak_mb:.0f}",
    )


def _precisions(report: BenchReport) -> Table:
    """The model and the dense one in each precision, at each batch size."""
    right = "agrees" if report.accuracy is None else "top-1"
    columns = ("best ms", "p50", "vs dense fp32", "vs dense int8", "MB", right)
    table = new_table("batch", "model", *columns, left=2, folding=("model",))
    entries = [entry for entry in report.entries if entry.label != GEMMS]
    entries.sort(key=lambda entry: entry.label in (DENSE, DENSE_INT8))
    for size in report.batch_sizes:
        for entry in entries:
            timing = report.timing(entry.label, size)
            if timing is not None:
                add_row(table, str(size), *_in_precision(report, entry, timing))
    for entry in entries:
        if entry.reason:
            add_row(table, UNKNOWN, entry.label, *[UNKNOWN] * len(columns))
    return table


def _in_precision(report: BenchReport, entry: Entry, timing: Timing) -> tuple[str, ...]:
    """The cells of one precision."""
    names = {REDUCED: f"{REDUCED} {report.precision} (this file)", DENSE: f"{DENSE} {FP32}"}
    dense = (report.timing(label, timing.batch_size) for label in (DENSE, DENSE_INT8))
    share = entry.agreement if report.accuracy is None else entry.accuracy
    return (
        names.get(entry.label, entry.label),
        figure(timing.best),
        figure(timing.median),
        *(UNKNOWN if one is None else f"{timing.best / one.best:.2f}x" for one in dense),
        figure(None if entry.bytes is None else entry.bytes / 1e6),
        UNKNOWN if share is None else f"{share:.1%}",
    )


def _head(report: BenchReport, timing: Timing) -> tuple[str, ...]:
    """Batch, model, GMACs and tokens of a row."""
    work: tuple[float | None, str] = (None, UNKNOWN)
    if timing.model == REDUCED:
        mean = sum(report.mean_tokens) / len(report.mean_tokens)
        work = (report.gmacs, f"{mean:.1f}")
    elif timing.model == DENSE:
        work = (report.dense_gmacs, str(report.initial_tokens))
    return (str(timing.batch_size), timing.model, figure(work[0]), work[1])


def _main(report: BenchReport) -> list[Timing]:
    """The file and its baseline."""
    return [t for t in report.timings if t.model in (REDUCED, report.baseline)]


def _ratios(report: BenchReport, timing: Timing) -> tuple[str, str]:
    """Speed-up and efficiency of the file's rows."""
    if timing.model != REDUCED:
        return "", ""
    speedup = report.speedup(timing.batch_size)
    efficiency = report.efficiency(timing.batch_size)
    return (
        "" if speedup is None else f"{speedup:.2f}x",
        "" if efficiency is None else f"{efficiency:.0%}",
    )


def _spreads(report: BenchReport) -> Table:
    """How images differ, how runs differ, what is computed a second, and memory.

    A process keeps the memory it once had, so the peak stands at the last batch size alone.
    """
    columns = ("batch", "model", "images differ by", "runs by", "GFLOP/s", "peak MB")
    table = new_table(*columns, left=2, folding=("model",))
    peaks = {entry.label: entry.peak_mb for entry in report.entries}
    for timing in report.timings:
        (low, high), noise = timing.image_spread, timing.noise
        peak = peaks.get(timing.model)
        cell = UNKNOWN if peak is None else f"{peak:.0f}"
        add_row(
            table,
            str(timing.batch_size),
            timing.model,
            f"{low:+.0%} to {high:+.0%}",
            UNKNOWN if noise is None else f"±{noise:.1%}",
            figure(report.gflops(timing)),
            cell if timing.batch_size == report.batch_sizes[-1] else "",
        )
    return table


def _profile(profile: Profile) -> Group:
    """Time by operator and by block."""
    return Group(
        _shares("operator", profile.operators[:OPERATORS]),
        _shares("block", profile.blocks),
        Text(
            f"profiled on {profile.images} images one at a time; the profiler adds some "
            "microseconds to every call",
            "dim",
        ),
    )


def _shares(what: str, shares: Sequence[Share]) -> Table:
    table = new_table(what, "calls", "ms", "share")
    for one in shares:
        add_row(table, one.name, str(one.calls), figure(one.ms), f"{one.share:.1%}")
    return table


def _cheapest_and_dearest(report: BenchReport) -> RenderableType:
    """The images of fewest, middling and most tokens, with their times if they were run alone."""
    where = "tokens after each block" if report.outgoing is None else "tokens in each block"
    text = ("image", where)
    timing = report.timing(REDUCED, 1)
    table = new_table(*text, *([] if timing is None else ["best ms"]), left=2, folding=text)
    order = sorted(range(len(report.tokens)), key=lambda i: sum(report.tokens[i]))
    for index in dict.fromkeys((order[0], order[len(order) // 2], order[-1])):
        tokens = " ".join(map(str, report.tokens[index]))
        times = [] if timing is None else [figure(timing.per_image[index])]
        add_row(table, report.names[index], tokens, *times)
    return table


def _closing_lines(report: BenchReport) -> list[str]:
    """Reasons, roofline, placement, accuracy, work and conditions."""
    lines = [f"{e.label}: not timed: {e.reason}" for e in report.entries if e.reason]
    for size in report.batch_sizes:
        roofline = report.roofline(size)
        if roofline is not None:
            lines.append(
                f"batch {size}: {figure(roofline.gflops)} GFLOP/s; its linear layers alone take "
                f"{figure(roofline.gemm_ms)} ms, at {figure(roofline.gemm_gflops)} GFLOP/s"
            )
    if len(report.placement) > 1:
        found = (f"{name} {count}" for name, count in report.placement.items())
        lines.append(f"nodes run by: {', '.join(found)}")
    if report.accuracy is not None:
        line = f"top-1: {report.accuracy:.1%}"
        if report.baseline_accuracy is not None:
            line += f", {report.baseline} {report.baseline_accuracy:.1%}"
        lines.append(line)
    if report.calibration is not None:
        lines.append(f"int8 beside this file is calibrated on {report.calibration}")
    lines += _outputs(report)
    share = report.gmacs / report.dense_gmacs
    ideal = gain(share, report.outgoing, report.tokens[0][-1])
    ideal = ideal or f": {1 / share:.2f}x would be ideal"
    lines.append(f"{share:.1%} of the dense multiply-accumulates{ideal}")
    rounds = len(report.timings[0].samples)
    return [
        *lines,
        f"{len(report.names)} images ({report.images}), {report.provider}, "
        f"{counted(report.threads)}, best of {rounds} round{'s' if rounds > 1 else ''}",
    ]


def _outputs(report: BenchReport) -> list[str]:
    """What a run gives, where that is more than an answer; and what cannot be said without one."""
    lines, given = list[str](), report.outputs
    timed = [entry.label for entry in report.entries if not entry.reason]
    if set(given) - {LOGITS, FEATURES}:
        dense = ", of the dense model, too" if report.baseline == DENSE else ""
        plain = " and ".join(label for label in (EAGER, LITERAL) if label in timed)
        alone = f"; {plain}: the answer alone" if plain else ""
        lines.append(f"a run gives {', '.join(given)}{dense}{alone}")
    if given and LOGITS not in given and any(_is_rival(report, label) for label in timed):
        lines.append("it gives no logits, so no share of images agrees")
    return lines
