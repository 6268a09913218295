"""`ltmp calibrate`: thresholds from the scores of some images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import ltmp_export
from ltmp_export import families
from ltmp_export.errors import InputError
from ltmp_export.statements.choices import Choices

from . import options, parsing
from .stated import UNSTATED, stating
from .terminal import show, spinner, warn_of, write_json
from .timed import Timed

_LATENCY = "A time as the target"


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
    latency_target: Annotated[
        float | None,
        typer.Option(
            help="Instead: share of the dense model's time to be left, measured here.",
            rich_help_panel=_LATENCY,
        ),
    ] = None,
    milliseconds: Annotated[
        float | None,
        typer.Option(help="Instead: time of an image.", rich_help_panel=_LATENCY),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(metavar="0.9,0.8", help="Only compare several targets, a row for each."),
    ] = None,
    latency: Annotated[
        bool,
        typer.Option(
            "--latency",
            help="The targets of --sweep are shares of the dense model's time.",
            rich_help_panel=_LATENCY,
        ),
    ] = False,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "-b", "--batch-size", help="Images of a run (default: 1).", rich_help_panel=_LATENCY
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Threads of an operator (default: all processors).", rich_help_panel=_LATENCY
        ),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"] | None,
        typer.Option(
            help="Numbers in which the file will compute, and the dense one (default: fp32).",
            rich_help_panel=_LATENCY,
        ),
    ] = None,
    single_images: Annotated[
        bool | None,
        typer.Option(
            "--single-images/--any-batch",
            show_default=False,
            help="The file will be that of ltmp export --batch-size 1, for single images only, "
            "which is faster (default: any batch).",
            rich_help_panel=_LATENCY,
        ),
    ] = None,
    providers: Annotated[
        str | None,
        typer.Option(
            help="onnxruntime execution providers (default: cpu).", rich_help_panel=_LATENCY
        ),
    ] = None,
    timing: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Times of another machine, from ltmp bench --table; nothing is measured here.",
            rich_help_panel=_LATENCY,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Checkpoint to write (default: calibrated.pth.tar)."),
    ] = None,
    family: options.Reduced = None,
    merge_at: Annotated[
        str | None,
        typer.Option(
            metavar="3,6,9",
            help="Blocks that reduce, of a --family without thresholds that reduces at a few.",
            rich_help_panel=_LATENCY,
        ),
    ] = None,
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
    workers: options.Working = 0,
    engine: options.Engine = "local",
    address: options.Address = None,
    name: options.Name = None,
    choices: Choices,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the targets to this .svg or .png (needs matplotlib).")
    ] = None,
    json: options.Json = None,
) -> None:
    """Find thresholds from the scores of some images, without labels or training, in seconds.

    They are moved until the work executed on images held out is the target's, within 0.5 %, or the
    time of the file (--latency-target, --milliseconds), within 5 %; exit code 1 where it is not.
    A fine-tuned checkpoint gets another target: its own thresholds move together.
    """
    at = None if merge_at is None else parsing.integers("--merge-at", merge_at, "3,6,9", least=0)
    choices = replace(choices, family=family, merge_at=at)
    runs = (batch_size, threads, precision, providers, timing, single_images)
    parsing.require_beside("--latency", latency or None, "--sweep", sweep)
    timed = Timed(latency_target, milliseconds, sweep if latency else None, *runs)
    asked = timed.asked(sweep)
    targets = () if asked else _targets(reduction_target, sweep)
    if asked and reduction_target is not None:
        raise InputError("a latency target stands in the place of --reduction-target; give one")
    rated = asked and _rated(choices)
    if at is not None and not rated:
        raise InputError(
            "--merge-at is for a time as the target of a family that reduces at a few blocks; drop "
            "it, or give --family topk, say, and --latency-target, too"
        )
    if sweep is None and output is None and not rated:
        output = Path("calibrated.pth.tar")
    read = [checkpoint, images, choices.base_checkpoint, class_map, timing]
    parsing.require_outputs([output, plot, json], read)
    place = ltmp_export.Place(engine, address, workers)
    if asked and (place.is_cluster or address is not None):
        raise InputError("times are measured on this machine; drop --engine and --address")
    with spinner() as progress:
        wanted = None if targets else timed.wanted()
        stated = replace(choices, reduction_target=1.0) if rated else choices
        parsing.require_takeable(checkpoint, stated, dense=True, learn=not rated)
        from ltmp_export import reports
        from ltmp_export.files import disk

        if plot is not None:
            reports.require_plot(plot)
        about: dict[str, Any] = {
            "spread": ltmp_export.Spread(
                merge=None if split is None else _merge_share(split),
                schedule=schedule,
                method=method,
                samples=samples,
                seed=seed,
            ),
            "name": name,
            "class_map": class_map,
            "class_order": class_order,
            "choices": choices,
            "knn": knn,
            "device": device,
            "progress": progress,
        }
        done = (
            ltmp_export.calibrate(checkpoint, images, targets, output, **about, place=place)
            if wanted is None
            else ltmp_export.calibrate_latency(
                checkpoint, images, wanted, output, **about, workers=workers
            )
        )
    warn_of(done)
    write_json(json, done.to_json())
    if plot is not None:
        disk.write_bytes(plot, reports.sweep_plot(done, plot))
    show(reports.calibrate_summary(done))
    if done.latency is not None and done.latency.failed:
        raise typer.Exit(1)


def _rated(choices: Choices) -> bool:
    """Whether a share of the work picks r or a keep rate of the family.

    Raises:
        InputError: Nothing makes it take a given time.
    """
    family, learned = choices.named()[0].family, families.learned()
    rated = [name for name in families.training_free() if not families.load(name).start]
    if family in families.names() and family not in (*learned, *rated):
        raise InputError(
            f"family {family} is not made to take a given time; choose from "
            f"{', '.join((*learned, *rated))}"
        )
    return family in rated


def _targets(reduction_target: float | None, sweep: str | None) -> tuple[float, ...]:
    """The one target, or those to compare.

    Raises:
        InputError: Neither or both were given, or something that is no number.
    """
    if sweep is None and reduction_target is not None:
        return (reduction_target,)
    if sweep is None:
        raise InputError(
            "give a target, --reduction-target 0.6, or several, --sweep 0.9,0.8,0.7; or a time, "
            "--latency-target 0.6"
        )
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
