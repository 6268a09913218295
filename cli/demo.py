"""`ltmp demo`: export, check and bench of the embedded checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import ltmp_export

from .terminal import show, spinner


def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Folder for the checkpoint and the model.")
    ] = Path("ltmp-demo"),
) -> None:
    """Export, check and time the embedded digits checkpoint, and say what happened."""
    with spinner() as progress:
        from ltmp_export import reports

        done = ltmp_export.demo(folder, progress)
    show(reports.demo_summary(done))
    raise typer.Exit(0 if done.check.passed() else 1)
