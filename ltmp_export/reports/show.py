"""What was drawn, in a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from ltmp_export.reports.tables import add_row, new_table

if TYPE_CHECKING:
    from ltmp_export.drawing.report import ShowReport


def show_summary(report: ShowReport) -> RenderableType:
    """A row for each image and file: tokens behind each block that is shown; then where it is."""
    several = len(report.models) > 1
    heads = ("image", *(("model",) if several else ()))
    blocks = (f"block {block}" for block in report.blocks)
    owned = not any("mixtures" in course for one in report.pictures for course in one.courses)
    more = ("merged", "pruned") if owned else ()
    table = new_table(*heads, *blocks, *more, left=len(heads))
    for shown in report.pictures:
        for model, course in zip(report.models, shown.courses, strict=True):
            found = course["blocks" if owned else "mixtures"]
            name = (shown.image, *((model.path.name,) if several else ()))
            last = [str(found[-1][key]) for key in ("merged_tokens", "pruned_patches") if owned]
            add_row(table, *name, *(str(one["tokens"]) for one in found), *last)
    legend = (
        "tokens behind each block; behind the last one, tokens of several patches and patches that "
        "are pruned"
    )
    if not owned:
        legend = "tokens that are mixed in a block or in front of it, rows in front apart"
    files = sum(len(shown.files) for shown in report.pictures) + len(report.grids)
    where = f"{report.output}: {files} {'picture' if files == 1 else 'pictures'}"
    if report.grids:
        where += f", all images on {', '.join(report.grids)}"
    return Group(table, Text(legend, "dim"), Text(where))
