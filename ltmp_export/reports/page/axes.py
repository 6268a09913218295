"""The frame of a chart as inline SVG: axes with names and units, ticks, and places in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ltmp_export.reports.page.elements import Html, element

WIDTH, HEIGHT = 680, 320  # of the picture, in its own units
LEFT, RIGHT, TOP, BOTTOM = 80, 16, 34, 46  # margins; names of lines stand in the upper one
TICKS = 5


@dataclass(frozen=True)
class Axes:
    """Where values lie.

    Attributes:
        across: Least and largest value from left to right.
        up: The same from below; both more than 0 where it is logarithmic.
        x: What is told from left to right, with its unit.
        y: The same from below.
        blocks: Whether every whole number from left to right is a block.
        logarithmic: Whether steps upward are factors.
    """

    across: tuple[float, float]
    up: tuple[float, float]
    x: str
    y: str
    blocks: bool = True
    logarithmic: bool = False

    def right(self, value: float) -> float:
        """The place of a value from the left."""
        return LEFT + (WIDTH - LEFT - RIGHT) * _share(value, *self.across)

    def down(self, value: float) -> float:
        """The place of a value from the top; one beyond the ends stands at them."""
        low, high = self.up
        value = min(max(value, low), high)
        if self.logarithmic:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * _share(value, low, high)

    def frame(self) -> list[Html]:
        """Lines, numbers and names."""
        bottom, found = HEIGHT - BOTTOM, []
        for value in self._up_ticks():
            y = self.down(value)
            found.append(_line(LEFT, y, WIDTH - RIGHT, y, "grid"))
            found.append(_words(LEFT - 7, y + 4, f"{value:g}", "end"))
        for value in self._across_ticks():
            found.append(_words(self.right(value), bottom + 17, f"{value:g}", "middle"))
        found.append(_line(LEFT, bottom, WIDTH - RIGHT, bottom, "axis"))
        found.append(_words((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, self.x, "middle"))
        middle = (TOP + bottom) / 2
        turned = f"rotate(-90 14 {middle:g})"
        return [*found, element("text", self.y, x=14, y=middle, text_anchor="middle",
                                transform=turned)]  # fmt: skip

    def _across_ticks(self) -> list[float]:
        low, high = self.across
        if not self.blocks:
            return ticks(low, high)
        first, last = math.ceil(low), math.floor(high)
        return [float(v) for v in range(first, last + 1, max(1, math.ceil((last - first) / 24)))]

    def _up_ticks(self) -> list[float]:
        if not self.logarithmic:
            return ticks(*self.up)
        low, high = (round(math.log10(value)) for value in self.up)
        return [10.0**power for power in range(low, high + 1, max(1, (high - low) // TICKS))]


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two, a few of them."""
    rough = (high - low) / TICKS
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(scale * factor for factor in (1, 2, 5, 10) if scale * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def chart(name: str, title: str, described: str, content: Sequence[Html]) -> Html:
    """A picture with a name and a description for who does not see it.

    Args:
        name: Of this program, for its identifiers.
        title: What it is.
        described: What is seen there.
        content: Its elements.
    """
    heads = (
        element("title", title, id=f"{name}-title"),
        element("desc", described, id=f"{name}-desc"),
    )
    drawn = element(
        "svg", *heads, *content, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", class_="chart",
        aria_labelledby=f"{name}-title", aria_describedby=f"{name}-desc",
    )  # fmt: skip
    return element("div", drawn, class_="wide", tabindex=0, role="group", aria_label=title)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def _words(x: float, y: float, words: str, anchor: str) -> Html:
    return element("text", words, x=float(x), y=float(y), text_anchor=anchor)


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5
