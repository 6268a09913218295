"""`ltmp compare`: every method that needs no training, on one model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import ltmp_export
from ltmp_export.errors import InputError
from ltmp_export.statements.choices import Choices

from . import options, parsing
from .stated import UNSTATED, stating
from .terminal import show, spinner, warn_of, write_json


@stating(UNSTATED)
def compare(
    checkpoint: options.Source,
    *,
    data: Annotated[
        Path, typer.Option(help="Folder with a folder for each class (or val/ of them), or .npz.")
    ],
    targets: Annotated[
        str,
        typer.Option(metavar="0.7,0.5", help="Shares of the multiply-accumulates to be left."),
    ] = "0.7,0.5,0.35",
    methods: Annotated[
        str | None,
        typer.Option(metavar="m,evit", help="Families to compare (default: all that can be)."),
    ] = None,
    merge_at: Annotated[
        str | None,
        typer.Option(
            metavar="3,6,9",
            help="Blocks of those that reduce at a few (default: behind each quarter of them).",
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Evaluate on at most so many images (default: all).")
    ] = None,
    batch_size: Annotated[
        str, typer.Option("-b", "--batch-size", help="Batch sizes to time.")
    ] = "1,16",
    iterations: Annotated[int, typer.Option(help="Rounds of every image.")] = 10,
    threads: options.Threads = None,
    class_map: options.ClassMap = None,
    class_order: options.ClassOrder = None,
    workers: options.Workers = 0,
    choices: Choices,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw accuracy over time to this .svg or .png (needs matplotlib)."),
    ] = None,
    json: options.Json = None,
) -> None:
    """Compare all methods that need no training on one model: accuracy and time.

    Each is exported at each target, checked, evaluated and timed beside the dense model, in
    processes of their own and in alternating rounds.
    """
    shares = parsing.numbers("--targets", targets, "0.7,0.5")
    sizes = parsing.integers("--batch-size", batch_size, "1,16")
    named = None if methods is None else _methods(methods)
    at = None if merge_at is None else parsing.integers("--merge-at", merge_at, "3,6,9", least=0)
    parsing.require_outputs([plot, json], [checkpoint, data, choices.base_checkpoint, class_map])
    with spinner() as progress:
        parsing.require_takeable(checkpoint, choices, dense=True)
        from ltmp_export import reports
        from ltmp_export.files import disk

        if plot is not None:
            reports.require_plot(plot)
        done = ltmp_export.compare(
            checkpoint,
            data,
            shares,
            methods=named,
            samples=samples,
            class_map=class_map,
            class_order=class_order,
            settings=ltmp_export.Settings(
                batch_sizes=sizes, iterations=iterations, threads=threads
            ),
            choices=replace(choices, merge_at=at),
            workers=workers,
            progress=progress,
        )
    warn_of(done)
    write_json(json, done.to_json())
    if plot is not None:
        disk.write_bytes(plot, reports.methods_plot(done, plot))
    show(reports.methods_summary(done))


def _methods(text: str) -> tuple[str, ...]:
    """Names of families.

    Raises:
        InputError: There are none.
    """
    named = tuple(part.strip() for part in text.split(","))
    if not all(named):
        raise InputError(f"--methods {text!r}: expected names of families, like m,evit")
    return named
