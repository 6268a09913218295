"""`ltmp inspect`: what a checkpoint or an exported model is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import ltmp_export
from ltmp_export.statements.choices import Choices

from . import parsing
from .stated import METHOD, UNSTATED, stating
from .terminal import show, spinner


@stating(METHOD, UNSTATED)
def inspect(
    file: Annotated[Path, typer.Argument(help="A checkpoint, an exported model, or timm:NAME.")],
    *,
    choices: Choices,
    images: Annotated[
        Path | None,
        typer.Option(help="Measure how near a checkpoint's decisions are on a folder or .npz."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Take at most so many of them (default: 100).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say what a checkpoint or an exported model is: family, geometry, thresholds, operators.

    timm:NAME alone downloads nothing: it says whether that model would be taken, as what, and
    what is missing.

    With --images also how near a checkpoint's decisions are to their thresholds: which share of
    the images a runtime or precision can decide otherwise.
    """
    parsing.require_beside("--samples", samples, "--images", images)
    with spinner() as progress:
        progress("reading")
        from ltmp_export import reports

        facts = ltmp_export.inspect(
            file, choices, images=images, samples=samples, progress=progress
        )
    if json:
        typer.echo(reports.to_json(facts), nl=False)
    else:
        named = facts["kind"] == "timm model"
        show(reports.timm_summary(facts) if named else reports.inspect_summary(facts))
