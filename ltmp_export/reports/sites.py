"""What a site holds, in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

if TYPE_CHECKING:
    from ltmp_export.commands.web import WebReport


def web_summary(report: WebReport) -> RenderableType:
    """Where it is, how large, what it runs in, and how to see it."""
    size = sum(report.files.values()) / 1e6
    held = f"{len(report.files)} files, {size:.1f} MB; recorded: {report.images}"
    runs = f"runs in {report.runtime.told}"
    if report.runtime.host is not None:
        runs += ", which the page loads from there (--onnxruntime-web DIR copies it instead)"
    see = f"put it on any web server; to see it here: python -m http.server -d {report.output}"
    return Group(Text(f"{report.output}: {held}"), Text(runs), Text(see, "dim"))
