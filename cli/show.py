"""`ltmp show`: pictures of what was merged and pruned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import ltmp_export

from . import options, parsing
from .terminal import show as tell
from .terminal import spinner, warn_of, write_json

ALL = "all"


def show(
    model: Annotated[Path, typer.Argument(help="ONNX file written by 'ltmp export'.")],
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the pictures (PNG).")
    ] = Path("pictures"),
    images: options.Images = None,
    samples: Annotated[
        int | None, typer.Option(help="Draw at most so many images (default: 12).")
    ] = None,
    blocks: Annotated[
        str | None,
        typer.Option(
            metavar="0,5,11|all", help="Which blocks, from 0 (default: at most six, spread)."
        ),
    ] = None,
    side_by_side: Annotated[
        Path | None,
        typer.Option(metavar="OTHER.onnx", help="Another file, under it, of the same images."),
    ] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Also all images on one picture, grid.png.")
    ] = False,
    apart: Annotated[
        bool, typer.Option("--apart", help="A file for each block instead of one with all of them.")
    ] = False,
    heat: Annotated[
        bool,
        typer.Option(
            "--heat", help="Where methods mix patches: what of each patch is in each token."
        ),
    ] = False,
    size: Annotated[
        int | None,
        typer.Option(help="Pixels of the longer side of each block's picture (default: from 320)."),
    ] = None,
    threads: options.Threads = None,
    json: options.Json = None,
) -> None:
    """Draw which patches became one token and which were pruned, block by block.

    By the file's own decisions; the picture under them is what the model saw.
    """
    parsing.require_outputs([json], [model, side_by_side, images])
    chosen = None
    if blocks is not None and blocks != ALL:
        chosen = parsing.integers("--blocks", blocks, f"0,5,11, or {ALL}", least=0)
    with spinner() as progress:
        from ltmp_export import reports

        drawn = ltmp_export.show(
            model,
            output,
            images=images,
            samples=samples,
            blocks=ALL if blocks == ALL else chosen,
            side_by_side=side_by_side,
            grid=grid,
            apart=apart,
            heat=heat,
            size=size,
            threads=threads,
            progress=progress,
        )
    warn_of(drawn)
    write_json(json, drawn.to_json())
    tell(reports.show_summary(drawn))
