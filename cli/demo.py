"""`ltmp demo`: export, check and bench of the embedded checkpoint, then a model of real size."""

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
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Without the model of real size (about 40 s).")
    ] = False,
) -> None:
    """Export, check and time the embedded digits checkpoint, and say what happened.

    Then time a model of real size, with made-up weights, on this machine.
    """
    with spinner() as progress:
        from ltmp_export import reports

        done = ltmp_export.demo(folder, progress)
    show(reports.demo_summary(done))
    if not done.check.passed():
        raise typer.Exit(1)
    if not quick:
        with spinner() as progress:
            from ltmp_export.timing import real_size

            measured = real_size.measure(progress, real_size.DEIT_S)
        show("")
        show(reports.real_size_summary(measured))
