"""`ltmp web`: a static site that runs a model in the visitor's browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import ltmp_export

from . import options, parsing
from .terminal import show, spinner, warn_of


def web(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx", help="ONNX file written by 'ltmp export'.")
    ],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the site.")] = Path(
        "site"
    ),
    images: options.Images = None,
    samples: Annotated[
        int | None, typer.Option(help="Record at most so many images (default: 20).")
    ] = None,
    onnxruntime_web: Annotated[
        Path | None,
        typer.Option(
            "--onnxruntime-web",
            metavar="DIR",
            help="The npm package onnxruntime-web, to be copied (default: loaded from a CDN).",
        ),
    ] = None,
    dense: Annotated[
        bool,
        typer.Option("--dense/--no-dense", help="Also serve the dense model, to time it beside."),
    ] = True,
    threads: options.Threads = None,
) -> None:
    """Make a static site that runs the model in the visitor's browser, with onnxruntime-web.

    Pictures are prepared there as the file says, tokens are shown block by block, and what the
    browser computes is compared with what onnxruntime computed when the site was made.
    """
    parsing.require_outputs([], [model, images, onnxruntime_web])
    with spinner() as progress:
        from ltmp_export import reports

        made = ltmp_export.web(
            model,
            output,
            images=images,
            samples=samples,
            onnxruntime_web=onnxruntime_web,
            dense=dense,
            threads=threads,
            progress=progress,
        )
    warn_of(made)
    show(reports.web_summary(made))
