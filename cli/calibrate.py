"""`ltmp calibrate`: thresholds from the scores of some images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

import ltmp_export
from ltmp_export.errors import InputError
from ltmp_export.statements.choices import Choices

from . import options, parsing
from .stated import UNSTATED, stating
from .terminal import show, spinner, warn_of, write_json


@stating(UNSTATED)
def calibrate(
    checkpoint: options.Source,
    *,
    images: Annotated[
        Path, typer.Option(help="Folder of pictures or .npz, with or without labels.")
    ],
    reduction_target: Annotated[
        float | None, typer.Option(help="Share of the multiply-accumulates to be left, like 0.6.")
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(metavar="0.9,0.8", help="Only compare several targets, a row for each."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Checkpoint to write (default: calibrated.pth.tar)."),
    ] = None,
    family: options.Learned = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="merge=0.7", help="Part of the removed tokens that merge (default: merge=0.7)."
        ),
    ] = None,
    schedule: Annotated[
        Literal["even", "early", "late"] | None,
        typer.Option(help="Which blocks remove a larger share (default: late)."),
    ] = None,
    method: Annotated[
        Literal["quantiles", "shift"] | None,
        typer.Option(
            help="From scores, or by moving the checkpoint's own (default: if it has any)."
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(help="Images to take; one half is only measured on.")
    ] = 256,
    seed: Annotated[int, typer.Option(help="Which half is which.")] = 0,
    class_map: options.ClassMap = None,
    class_order: options.ClassOrder = None,
    knn: options.Knn = None,
    device: options.Device = "auto",
    workers: options.Workers = 0,
    name: options.Name = None,
    choices: Choices,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the targets to this .svg or .png (needs matplotlib).")
    ] = None,
    json: options.Json = None,
) -> None:
    """Find thresholds from the scores of some images, without labels or training, in seconds.

    They are moved until the work executed on images held out is the target's, within 0.5 %.
    A fine-tuned checkpoint gets another target: its own thresholds move together.
    """
    choices = replace(choices, family=family)
    targets = _targets(reduction_target, sweep)
    if sweep is None and output is None:
        output = Path("calibrated.pth.tar")
    parsing.require_outputs(
        [output, plot, json], [checkpoint, images, choices.base_checkpoint, class_map]
    )
    with spinner() as progress:
        parsing.require_takeable(checkpoint, choices, dense=True, learn=True)
        from ltmp_export import reports
        from ltmp_export.files import disk

        if plot is not None:
            reports.require_plot(plot)
        done = ltmp_export.calibrate(
            checkpoint,
            images,
            targets,
            output,
            spread=ltmp_export.Spread(
                merge=None if split is None else _merge_share(split),
                schedule=schedule,
                method=method,
                samples=samples,
                seed=seed,
            ),
            name=name,
            class_map=class_map,
            class_order=class_order,
            choices=choices,
            knn=knn,
            device=device,
            workers=workers,
            progress=progress,
        )
    warn_of(done)
    write_json(json, done.to_json())
    if plot is not None:
        disk.write_bytes(plot, reports.sweep_plot(done, plot))
    show(reports.calibrate_summary(done))


def _targets(reduction_target: float | None, sweep: str | None) -> tuple[float, ...]:
    """The one target, or those to compare.

    Raises:
        InputError: Neither or both were given, or something that is no number.
    """
    if sweep is None and reduction_target is not None:
        return (reduction_target,)
    if sweep is None:
        raise InputError("give a target, --reduction-target 0.6, or several, --sweep 0.9,0.8,0.7")
    if reduction_target is not None:
        raise InputError("--sweep has its own targets; drop --reduction-target")
    return parsing.numbers("--sweep", sweep, "0.9,0.8,0.7")


def _merge_share(text: str) -> float:
    """The share in `merge=0.7` or `prune=0.3`.

    Raises:
        InputError: Something else was given.
    """
    kind, _, share = text.partition("=")
    try:
        number = float(share)
    except ValueError:
        number = -1.0
    if kind not in ("merge", "prune") or not 0.0 <= number <= 1.0:
        raise InputError(f"--split {text}: expected a share from 0 to 1, like merge=0.7")
    return number if kind == "merge" else 1.0 - number
