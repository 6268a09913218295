"""What a page holds, in a few words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

if TYPE_CHECKING:
    from ltmp_export.commands.report import PageReport


def page_summary(report: PageReport) -> RenderableType:
    """Where it is, how large, the verdict, and how to see it."""
    found = report.findings
    told = [] if found.check is None else [f"check: {found.check.verdict}"]
    if found.pictures is not None:
        told.append(f"{len(found.pictures.courses)} images")
    held = ", ".join([f"{report.bytes / 1e6:.1f} MB", *told])
    return Text(f"{report.output}: {held}; open it in a browser")
