"""Tables of what was timed."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from ltmp_export.latency import BenchReport, Timing
from ltmp_export.reports.tables import UNKNOWN, add_row, figure, new_table


def bench_summary(report: BenchReport) -> RenderableType:
    """A row for each model and batch size, then what the images cost."""
    per_image = ("median ms", "p10", "p90", "images/s", "speed-up")
    table = new_table(
        "batch", "model", "GMACs", "mean tokens", *per_image, left=2, folding=("model",)
    )
    mean_tokens = sum(map(sum, report.tokens)) / sum(map(len, report.tokens))
    dense_tokens = UNKNOWN if report.baseline_gmacs is None else str(report.initial_tokens)
    for timing in report.timings:
        reduced = timing.model == "reduced"
        ratio = report.speedup(timing.batch_size) if reduced else None
        add_row(
            table,
            str(timing.batch_size),
            timing.model,
            figure(report.gmacs if reduced else report.baseline_gmacs),
            f"{mean_tokens:.1f}" if reduced else dense_tokens,
            *(figure(value) for value in (timing.median, timing.p10, timing.p90)),
            f"{timing.images_per_second:.1f}",
            "" if ratio is None else f"{ratio:.2f}x",
        )
    share = report.gmacs / report.dense_gmacs
    parts: list[RenderableType] = [table, _cheapest_and_dearest(report, report.timings[0])]
    if report.accuracy is not None:
        line = f"top-1: {report.accuracy:.1%}"
        if report.baseline_accuracy is not None:
            line += f", {report.baseline} {report.baseline_accuracy:.1%}"
        parts.append(Text(line))
    parts.append(
        Text(
            f"{share:.1%} of the dense multiply-accumulates; {len(report.names)} images "
            f"({report.images}), {report.provider}, {report.threads} threads"
        )
    )
    return Group(*parts)


def _cheapest_and_dearest(report: BenchReport, timing: Timing) -> RenderableType:
    """The images of fewest, middling and most tokens, with their times."""
    text = ("image", "tokens after each block")
    table = new_table(*text, "ms", left=2, folding=text)
    order = sorted(range(len(report.tokens)), key=lambda i: sum(report.tokens[i]))
    for index in dict.fromkeys((order[0], order[len(order) // 2], order[-1])):
        tokens = " ".join(map(str, report.tokens[index]))
        add_row(table, report.names[index], tokens, figure(timing.per_image[index]))
    return table
