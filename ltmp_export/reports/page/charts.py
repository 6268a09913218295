"""Charts: tokens by block, thresholds, margins, and time over tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ltmp_export.reports.page.axes import LEFT, TOP, Axes, chart
from ltmp_export.reports.page.elements import Html, element, joined
from ltmp_export.reports.page.tables import table
from ltmp_export.reports.tables import figure
from ltmp_export.timing.contenders import DENSE, REDUCED

if TYPE_CHECKING:
    from ltmp_export.timing.report import BenchReport

QUANTILES = {"least": 0.0, "quarter": 0.25, "median": 0.5, "three quarters": 0.75, "most": 1.0}
SERIES = 4  # looks that the style knows; more kinds of lines than that repeat
LEGEND = 110.0  # from one name above a chart to the next
LEAST = 1e-9  # the lower end of margins: what is less stands there
Points = Sequence[tuple[float, float]]


def tokens(counts: Sequence[Sequence[int]], initial: int) -> Html:
    """The distribution of tokens over images, behind each block; chart and table.

    Args:
        counts: [images][depth].
        initial: Before the first block.
    """
    found = np.quantile(np.array(counts), list(QUANTILES.values()), axis=0)
    depth = found.shape[1]
    axes = Axes((-0.6, depth - 0.4), (0, initial), "block", "tokens after the block (number)")
    drawn = axes.frame()
    half = min(14.0, 0.3 * (axes.right(1) - axes.right(0)))
    for block in range(depth):
        x = axes.right(block)
        least, low, middle, high, most = (axes.down(value) for value in found[:, block])
        drawn.append(_line(x, most, x, least, "whisker"))
        drawn.append(
            element("rect", x=x - half, y=high, width=2 * half, height=max(1.0, low - high),
                    class_="box")
        )  # fmt: skip
        drawn.append(_line(x - half, middle, x + half, middle, "median"))
    dense = axes.down(initial)
    drawn.append(_line(axes.right(-0.6), dense, axes.right(depth - 0.4), dense, "dense"))
    last = found[:, -1]
    told = (
        f"For each of {depth} blocks a box from the quarter to three quarters of {len(counts)} "
        f"images, with the median, and a line from the least to the most. {initial} tokens enter; "
        f"behind the last block {last[0]:g} to {last[-1]:g} are left, {last[2]:g} in the middle."
    )
    rows = [[str(b), *(f"{v:g}" for v in found[:, b])] for b in range(depth)]
    return joined(
        chart("tokens", "Tokens by block", told, drawn),
        element("p", "Box: the middle half of the images, with the median; line: least to most; "
                f"dashed: {initial} tokens, as they enter.", class_="told"),
        _numbers(table(["block", *QUANTILES], rows, "tokens by block")),
    )  # fmt: skip


def thresholds(found: Mapping[str, Points]) -> Html:
    """Thresholds by block, a chart for each kind of step: its points (block, threshold)."""
    return joined(*(_of_kind(kind, points) for kind, points in found.items()))


def _of_kind(kind: str, points: Points) -> Html:
    blocks, values = zip(*points, strict=True)
    low, high = min(values), max(values)
    room = 0.15 * (high - low) or 0.1 * abs(high) or 1.0
    axes = Axes(
        (min(blocks) - 0.5, max(blocks) + 0.5), (low - room, high + room), "block",
        f"{kind} threshold (score)",
    )  # fmt: skip
    told = f"A line over {len(points)} blocks, from {low:.4g} to {high:.4g}."
    drawn = [*axes.frame(), *_series(axes, {kind: points})]
    return chart(f"thresholds-{kind}", f"Thresholds of {kind} by block", told, drawn)


def margins(found: Mapping[str, Any]) -> Html:
    """Smallest distance of a decision from its threshold, by block and kind.

    Args:
        found: As `parity.margins` gives it, with at least one finite smallest distance.
    """
    points = smallest(found)
    values = [value for line in points.values() for _, value in line]
    high = 10.0 ** math.ceil(math.log10(max(*values, 10 * LEAST)))
    low = 10.0 ** math.floor(math.log10(max(LEAST, min(values))))
    blocks = [block for line in points.values() for block, _ in line]
    across = (min(blocks) - 0.5, max(blocks) + 0.5)
    axes = Axes(
        across, (min(low, high / 10), high), "block", "smallest |score - threshold|",
        logarithmic=True,
    )  # fmt: skip
    told = "; ".join(f"{kind}: {min(v for _, v in line):.1e}" for kind, line in points.items())
    words = f"Over {found['count']} images, logarithmic. Nearest of all blocks: {told}."
    drawn = [*axes.frame(), *_series(axes, points)]
    return chart("margins", "Smallest margin by block", words, drawn)


def smallest(found: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Smallest distances by kind: (block, distance); none of steps without decisions."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in found["steps"]:
        if row["quantiles"][0] is not None:
            points.setdefault(row["step"], []).append((row["block"], row["quantiles"][0]))
    return points


def times(report: BenchReport) -> Html:
    """Time of each image alone over the tokens it keeps, beside the dense model's.

    Nothing where no batch of one image was timed.
    """
    timing = report.timing(REDUCED, 1)
    if timing is None:
        return joined()
    dense = report.timing(DENSE, 1) if report.baseline == DENSE else None
    kept, best = report.mean_tokens, timing.per_image
    highest = 1.1 * max(*best, *([] if dense is None else [dense.best]), 0.0)
    low, high = math.floor(min(kept)) - 1.0, math.ceil(max(kept)) + 1.0
    axes = Axes(
        (low, high), (0.0, highest), "tokens kept (mean over the blocks)",
        "time per image (ms), best of the rounds", blocks=False,
    )  # fmt: skip
    drawn = axes.frame()
    for where, time in zip(kept, best, strict=True):
        drawn.append(element("circle", cx=axes.right(where), cy=axes.down(time), r=4, class_="dot"))
    told = f"{len(best)} images one at a time: {figure(min(best))} to {figure(max(best))} ms"
    if dense is not None:
        y = axes.down(dense.best)
        drawn.append(_line(axes.right(low), y, axes.right(high), y, "dense"))
        told += f"; the dense model {figure(dense.best)} ms, dashed"
    return joined(
        chart("times", "Time over tokens", f"{told}.", drawn),
        element("p", f"{told}.", class_="told"),
    )


def _series(axes: Axes, found: Mapping[str, Points]) -> list[Html]:
    """A line with a mark at each point for each kind, and above all its name."""
    drawn = []
    for number, (kind, points) in enumerate(found.items()):
        look = f"series look-{number % SERIES}"
        places = [(axes.right(x), axes.down(y)) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn.append(element("polyline", points=path, class_=look))
        drawn += [_mark(number % SERIES, x, y) for x, y in places]
        x = LEFT + LEGEND * number
        drawn.append(_mark(number % SERIES, x, TOP / 2 - 4))
        drawn.append(element("text", kind, x=x + 12, y=TOP / 2))
    return drawn


def _mark(look: int, x: float, y: float) -> Html:
    """Of a shape of its own, so that nobody needs the colours."""
    kind = f"mark look-{look}"
    if look == 0:
        return element("circle", cx=x, cy=y, r=4.5, class_=kind)
    corners = {
        1: ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        2: ((0, -5.5), (5, 4), (-5, 4)),
        3: ((0, -6), (6, 0), (0, 6), (-6, 0)),
    }[look]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return element("polygon", points=points, class_=kind)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def _numbers(shown: Html) -> Html:
    return element("details", element("summary", "the numbers"), shown)
