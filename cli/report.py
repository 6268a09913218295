"""`ltmp report`: one page that tells of an exported model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import ltmp_export
from ltmp_export.statements.choices import Choices

from . import options, parsing
from .stated import METHOD, UNSTATED, stating
from .terminal import show, spinner, warn_of, write_json


@stating(METHOD, UNSTATED)
def report(
    exported: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx", help="ONNX file written by 'ltmp export'.")
    ],
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CHECKPOINT]",
            help="The checkpoint it was exported from: also check it, and measure margins.",
        ),
    ] = None,
    *,
    choices: Choices,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page (HTML).")] = Path(
        "report.html"
    ),
    images: options.Images = None,
    samples: Annotated[
        int | None,
        typer.Option(help="Take at most so many images (default: 48, for the check 16)."),
    ] = None,
    bench: Annotated[
        bool, typer.Option("--bench", help="Also time it against the dense model.")
    ] = False,
    threads: options.Threads = None,
    json: options.Json = None,
) -> None:
    """Tell of an exported model on one page of HTML that can be sent: nothing is loaded for it.

    What it is, tokens by block, pictures of what was merged and pruned (12 images at most),
    thresholds; with its checkpoint the verdict of the check, and margins.
    """
    parsing.require_outputs([output, json], [exported, checkpoint, choices.base_checkpoint, images])
    if checkpoint is not None:
        from ltmp_export.checkpoint import refusals
        from ltmp_export.files import disk

        disk.require_file(exported, "an ONNX model")
        refusals.require_readable(checkpoint, choices)
    with spinner() as progress:
        from ltmp_export import reports

        written = ltmp_export.report(
            exported,
            checkpoint,
            output,
            images=images,
            samples=samples,
            bench=bench,
            choices=choices,
            threads=threads,
            progress=progress,
        )
    warn_of(written)
    write_json(json, written.to_json())
    show(reports.page_summary(written))
    raise typer.Exit(0 if written.passed() else 1)
