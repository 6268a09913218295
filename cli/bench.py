"""`ltmp bench`: the time of an exported model per image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import ltmp_export
from ltmp_export.errors import InputError
from ltmp_export.runtimes import listed

from . import options, parsing
from .stated import BaseCheckpoint
from .terminal import show, spinner, warn, write_json

if TYPE_CHECKING:
    from ltmp_export.timing.report import BenchReport
    from ltmp_export.timing.settings import Settings


def bench(
    model: Annotated[Path, typer.Argument(help="ONNX file written by 'ltmp export'.")],
    *,
    images: options.Images = None,
    samples: Annotated[
        int | None, typer.Option(help="Time at most so many images (default: all).")
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(
            "-b", "--batch-size", help="Batch sizes to time, for example 1,8,32 (default: 1)."
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            help="Threads of an operator (default: all processors); 'auto' tries 1, 2, … all and "
            "takes what is best for the model."
        ),
    ] = None,
    warmup: Annotated[int, typer.Option(help="Runs before the first counted one.")] = 10,
    iterations: Annotated[int, typer.Option(help="Rounds: counted runs of every image.")] = 10,
    providers: Annotated[
        str,
        typer.Option(
            help="onnxruntime execution providers, by name or its beginning; the first must run."
        ),
    ] = "cpu",
    baseline: Annotated[
        str, typer.Option(help="An ONNX file to compare with; 'dense' makes it; 'none'.")
    ] = "dense",
    scenario: Annotated[
        Literal["single-stream", "offline"] | None,
        typer.Option(help="One image after the other, or images per second at batches 1,8,32."),
    ] = None,
    side_by_side: Annotated[
        Path | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Also time what one would pick instead: eager PyTorch and a literal export of "
            "this checkpoint, OpenVINO.",
        ),
    ] = None,
    precisions: Annotated[
        Path | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Also time this checkpoint in the other precisions (fp32, fp16, int8), and the "
            "dense model in int8.",
        ),
    ] = None,
    base_checkpoint: BaseCheckpoint = None,
    calibration_images: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGES",
            help="For the int8 of --precisions: folder of pictures or .npz like those the model "
            "will see.",
        ),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="Also time it and its baseline in other runtimes, of "
            f"{', '.join(name for name in listed.runtimes() if name != listed.ONNXRUNTIME)}.",
        ),
    ] = None,
    roofline: Annotated[
        bool,
        typer.Option("--roofline", help="Also time the linear layers alone (costs a third)."),
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also take the time of each operator and block.")
    ] = False,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Time it at several token counts instead, for ltmp calibrate --timing.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw time over tokens to this .svg or .png (needs matplotlib)."),
    ] = None,
    json: options.Json = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="OLD.json", help="An earlier --json; exit 1 if this run is slower."),
    ] = None,
    max_regression: Annotated[
        str | None, typer.Option(help="The change that --compare allows (default: 5%).")
    ] = None,
) -> None:
    """Time an exported model per image, against the dense model of the same weights.

    Each model runs in a process of its own, in alternating rounds.
    """
    sizes = None if batch_size is None else parsing.integers("--batch-size", batch_size, "1,8")
    other = None if baseline in ("dense", "none") else Path(baseline)
    sources = (side_by_side, precisions, base_checkpoint, calibration_images)
    parsing.require_outputs([json, plot, table], [model, images, compare, *sources, other])
    needed = "--side-by-side or --precisions"
    parsing.require_beside("--base-checkpoint", base_checkpoint, needed, side_by_side or precisions)
    parsing.require_beside("--calibration-images", calibration_images, "--precisions", precisions)
    parsing.require_beside("--max-regression", max_regression, "--compare", compare)
    asked = ltmp_export.Settings(
        batch_sizes=sizes,
        threads=_threads(threads),
        warmup=warmup,
        iterations=iterations,
        providers=tuple(providers.split(",")),
        scenario=scenario,
        profile=profile,
        roofline=roofline,
    )
    if table is not None:
        others = (scenario, *sources, runtime, profile or roofline, plot, json, compare)
        _require_alone("--table", any(others) or baseline != "dense")
        _tabulate(table, model, images, samples, asked)
        return
    with spinner() as progress:
        from ltmp_export import reports
        from ltmp_export.timing import regression

        text = "5%" if max_regression is None else max_regression  # "" is no percentage
        allowed = regression.percentage("--max-regression", text)
        earlier = None if compare is None else regression.read(compare, asked)
        if plot is not None:
            reports.require_plot(plot)
        measured = ltmp_export.bench(
            model,
            images=images,
            samples=samples,
            baseline=other or (None if baseline == "none" else baseline),
            side_by_side=side_by_side,
            precisions=precisions,
            base_checkpoint=base_checkpoint,
            calibration_images=calibration_images,
            runtimes=[name for names in runtime or () for name in names.split(",")],
            settings=asked,
            progress=progress,
        )
    _report(measured, json, plot)
    if earlier is not None:
        changes = regression.compare(earlier, measured, allowed)
        show(reports.compare_summary(changes))
        slower = any(change.verdict == regression.SLOWER for change in changes)
        raise typer.Exit(1 if slower else 0)


def _require_alone(flag: str, others: bool) -> None:
    """Check that nothing else is asked for.

    Raises:
        InputError: Something is.
    """
    if others:
        raise InputError(
            f"{flag} times the file at other token counts, and nothing beside it; give only "
            "--images, --samples, --batch-size, --threads, --warmup, --iterations and --providers"
        )


def _tabulate(
    table: Path, model: Path, images: Path | None, samples: int | None, settings: Settings
) -> None:
    """Time the file at several token counts, and write that."""
    with spinner() as progress:
        from ltmp_export import reports

        timed = ltmp_export.time_table(
            model, images=images, samples=samples, settings=settings, progress=progress
        )
    warn(*timed.warnings)
    write_json(table, timed.to_json())
    show(reports.time_table_summary(timed))


def _threads(text: str | None) -> int | Literal["auto"] | None:
    """A number, or "auto".

    Raises:
        InputError: Something else was given.
    """
    if text is None:
        return None
    if text.strip().lower() == "auto":
        return "auto"
    return parsing.integer("--threads", text, "2, or auto")


def _report(measured: BenchReport, json: Path | None, plot: Path | None) -> None:
    """Show what was measured, and write what was asked for."""
    from ltmp_export import reports
    from ltmp_export.files import disk

    warn(*measured.warnings)
    write_json(json, measured.to_json())
    if plot is not None:
        disk.write_bytes(plot, reports.bench_plot(measured, plot))
    show(reports.bench_summary(measured))
