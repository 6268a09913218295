"""A table of what changed since an earlier report."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from ltmp_export.reports.tables import new_table
from ltmp_export.timing.regression import SAME, SLOWER, Change

CHANGE_COLOURS = {SLOWER: "red", SAME: "green"}


def compare_summary(changes: Sequence[Change]) -> RenderableType:
    """A row for each batch size: then, now, and whether it is a regression."""
    table = new_table("batch", "compared", "then", "now", "change", "noise", "verdict", left=2)
    for one in changes:
        cells = (
            str(one.batch_size), one.measure, f"{one.old:.4g}", f"{one.new:.4g}",
            f"{one.change:+.1%}", f"±{one.noise:.1%}",
        )  # fmt: skip
        colour = CHANGE_COLOURS.get(one.verdict, "")
        table.add_row(*map(Text, cells), Text(one.verdict, colour))
    allowed = f"{100 * changes[0].allowed:g}%"
    line = Text(f"no regression beyond {allowed}")
    if slower := sum(one.verdict == SLOWER for one in changes):
        where = f"regression at {slower} of {len(changes)} batch sizes"
        line = Text(f"{where}, beyond {allowed} and noise", "red")
    if any(one.noise > one.allowed for one in changes):
        hidden = f"; noise would hide one of {allowed}: more --iterations, or a quieter machine"
        line.append(hidden, "yellow")
    return Group(table, line)
