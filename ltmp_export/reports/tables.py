"""Tables and figures as all reports show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

UNKNOWN = "–"
_ENDLESS = 10_000  # columns
COLOURS = {
    "equal": "green",
    "borderline": "yellow",
    "fail": "red",
    "inconclusive": "red",
    "bounded": "green",
}


def gain(share: float, outgoing: int | None = None, tokens: int | None = None) -> str:
    """What to say behind a share of the dense multiply-accumulates that itself saves none.

    Args:
        share: Of the dense ones.
        outgoing: Tokens that go out where the last step stands behind all blocks, see
            `plan.work.outgoing`; else None.
        tokens: Then those that the last block leaves.
    """
    if outgoing is not None:
        return f"; {outgoing} of {tokens} tokens go out, which is less for what reads them"
    return "" if share < 1.0 else ", no less than the dense model: nothing to gain"


class Fitting:
    """The first of some renderings that there is room for, else the last.

    Args:
        tables: The widest first.
    """

    def __init__(self, *tables: Table) -> None:
        self.tables = tables

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        *wider, narrowest = self.tables
        endless = options.update(max_width=_ENDLESS)
        widths = ((table, Measurement.get(console, endless, table).maximum) for table in wider)
        fitting = (table for table, width in widths if width <= options.max_width)
        yield next(fitting, narrowest)


def new_table(*columns: str, left: int = 1, folding: Sequence[str] = ()) -> Table:
    """An empty table.

    Args:
        columns: Their headers.
        left: How many are text, the others are figures.
        folding: Those that may break over lines where a terminal is narrow.
    """
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        justify: JustifyMethod = "left" if index < left else "right"
        made.add_column(column, justify=justify, overflow="fold", no_wrap=column not in folding)
    return made


def add_row(target: Table, *cells: str) -> None:
    """Cells as they are: names of files and images are data, not markup."""
    target.add_row(*(Text(cell) for cell in cells))


def figure(value: float | None) -> str:
    """Three significant digits or whole numbers, never an exponent."""
    if value is None:
        return UNKNOWN
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def facts_grid(rows: Mapping[str, str]) -> Table:
    """Names and their values."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in rows.items():
        grid.add_row(Text(key, "bold"), Text(value))
    return grid


def vector(values: Sequence[float]) -> str:
    """Numbers in one word."""
    return "/".join(f"{value:g}" for value in values)
