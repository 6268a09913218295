"""The tables that terminals show, as elements: the page computes nothing a second time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ltmp_export.reports.page.elements import Content, Html, element, joined
from ltmp_export.reports.tables import Fitting


def rendered(shown: RenderableType, label: str) -> Html:
    """Tables, lines and groups of them.

    Args:
        shown: As a summary gives it.
        label: What its tables are about.

    Raises:
        TypeError: There is something else among them.
    """
    if isinstance(shown, Group):
        return joined(*(rendered(part, label) for part in shown.renderables))
    if isinstance(shown, Fitting):
        return rendered(shown.tables[0], label)
    if isinstance(shown, Table):
        return _table(shown, label)
    if isinstance(shown, Text):
        lines = (line.strip() for line in shown.plain.splitlines())
        return joined(*(element("p", line) for line in lines if line))
    raise TypeError(f"no element for {type(shown).__name__}")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], label: str, left: int = 1) -> Html:
    """A table whose first cells name their rows.

    Args:
        heads: Of the columns; none are shown if there are none.
        rows: Cells.
        label: What it is about.
        left: How many columns are text, the others are figures.
    """

    def kind(column: int) -> str:
        return "words" if column < left else "figure"

    top = (element("th", head, scope="col", class_=kind(i)) for i, head in enumerate(heads))
    head = (element("thead", element("tr", *top)),) if heads else ()
    body = element("tbody", *(element("tr", *_cells(row, kind)) for row in rows))
    drawn = element("table", *head, body)
    return element("div", drawn, class_="wide", tabindex=0, role="group", aria_label=label)


def _cells(row: Sequence[str], kind: Callable[[int], str]) -> list[Html]:
    first, *others = row
    cells = [element("th", *_lines(first), scope="row", class_="words")]
    return cells + [element("td", *_lines(c), class_=kind(i + 1)) for i, c in enumerate(others)]


def _lines(cell: str) -> list[Content]:
    found: list[Content] = []
    for number, line in enumerate(cell.split("\n")):
        found += [element("br"), line] if number else [line]
    return found


def _table(shown: Table, label: str) -> Html:
    columns = shown.columns
    heads = [_plain(column.header) for column in columns] if shown.show_header else []
    rows = list(zip(*([_plain(cell) for cell in column.cells] for column in columns), strict=True))
    left = sum(column.justify != "right" for column in columns)
    return table(heads, rows, label, left) if rows else joined()


def _plain(cell: RenderableType) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)
