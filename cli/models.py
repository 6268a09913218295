"""`ltmp models`: which models of timm's are taken."""

from __future__ import annotations

from typing import Annotated

import typer

import ltmp_export

from .terminal import show, spinner


def models(
    pattern: Annotated[
        str, typer.Argument(help="Only names, or names with tags, that match, like '*dinov2*'.")
    ] = "*",
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say which ViTs and other networks of timm's are taken, in groups of like architectures.

    Nothing is downloaded. All of them take about a minute, those of a pattern a tenth of a second
    each. What one of them is: ltmp inspect timm:NAME.
    """
    with spinner() as progress:
        progress("reading timm's list")
        from ltmp_export import reports

        facts = ltmp_export.models(pattern, progress=progress)
    if json:
        typer.echo(reports.to_json(facts), nl=False)
    else:
        show(reports.models_summary(facts))
