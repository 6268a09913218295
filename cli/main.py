"""Commands of `ltmp`: parse, call `ltmp_export`, show. Nothing heavy is imported before it is used.

Exit codes: 0 done; 1 a check or comparison failed; 2 bad usage or bad input; 3 the export itself
failed; 4 an optional dependency or execution provider is missing; 130 interrupted.
Results go to stdout, progress and warnings to stderr.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import learning, options, parsing
from .terminal import (
    annotate,
    note,
    reporting_errors,
    show,
    spinner,
    warn,
    warn_of,
    write_json,
)

app = typer.Typer(
    name="ltmp",
    help="Take token-reducing Vision Transformers (LTMP, ToMe and kin) from a timm model or a "
    "checkpoint to a checked ONNX model.",
    epilog="Start with: ltmp demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"ltmp {version('ltmp')}")
        raise typer.Exit


@app.callback()
@reporting_errors
def _top(
    context: typer.Context,
    memory_limit: options.MemoryLimit = 8.0,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options that hold for every command."""
    from ltmp_export.files import memory

    context.with_resource(memory.memory_limit(memory_limit))


@app.command()
@reporting_errors
def export(
    checkpoint: options.Checkpoint,
    output: Annotated[Path, typer.Option("-o", "--output", help="The ONNX file to write.")] = Path(
        "model.onnx"
    ),
    opset: Annotated[int, typer.Option(help="Opset to write: 16 to the newest.")] = 17,
    batch_size: Annotated[
        int | None,
        typer.Option("-b", "--batch-size", help="1: single images only, faster (default: any)."),
    ] = None,
    mode: options.Mode = None,
    keep_tokens: options.KeepTokens = None,
    images: options.BudgetImages = None,
    samples: options.BudgetSamples = None,
    precision: options.Kind = "fp32",
    calibration_images: options.CalibrationImages = None,
    calibration_samples: options.CalibrationSamples = None,
    activation_scales: options.ActivationScales = "static",
    protect_decisions: options.ProtectDecisions = True,
    io: options.InputOutput = "fp32",
    family: options.Family = None,
    model: options.Model = None,
    base_checkpoint: options.BaseCheckpoint = None,
    use_ema: options.UseEma = None,
    num_heads: options.NumHeads = None,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    pool: options.Pool = None,
    act: options.Act = None,
    norm_eps: options.NormEps = None,
    assume_defaults: options.AssumeDefaults = None,
    rate: options.Rate = None,
    reduction_target: options.RateTarget = None,
    merge_at: options.MergeAt = None,
    merge_scale: options.MergeScale = None,
    token_counts: Annotated[
        bool, typer.Option("--token-counts", help="Add the output token_counts, (batch, depth).")
    ] = False,
    check: Annotated[
        bool, typer.Option(help="Compare mixed images with the reference before writing.")
    ] = True,
    json: options.Json = None,
) -> None:
    """Export a checkpoint to an ONNX model, checked before it is written.

    Families with thresholds (ltmp, …) come from the checkpoint; m, p, mp and pm take any plain ViT
    and --r.
    """
    choices = parsing.choices(
        family, model, base_checkpoint, use_ema, num_heads, image_size, mean, std,
        pool, act, norm_eps, assume_defaults, rate, reduction_target, merge_at, merge_scale,
    )  # fmt: skip
    parsing.require_outputs(
        [output, json], [checkpoint, base_checkpoint, images, calibration_images]
    )
    with spinner() as progress:
        parsing.require_takeable(checkpoint, choices)
        from ltmp_export import reports
        from ltmp_export.commands import export as commands_export
        from ltmp_export.precision.formats import Precision

        done = commands_export.export(
            checkpoint,
            output,
            opset=opset,
            batch_size=batch_size,
            token_counts=token_counts,
            mode=mode,
            keep_tokens=keep_tokens,
            images=images,
            samples=samples,
            precision=Precision(precision, protect_decisions, io, activation_scales),
            calibration_images=calibration_images,
            calibration_samples=calibration_samples,
            check=check,
            choices=choices,
            progress=progress,
        )
    warn_of(done)
    write_json(json, done.to_json())
    show(reports.export_summary(done))


@app.command()
@reporting_errors
def check(
    model: options.CheckedModel = None,
    checkpoint: options.CheckedCheckpoint = None,
    family: options.Family = None,
    timm_name: options.Model = None,
    base_checkpoint: options.BaseCheckpoint = None,
    use_ema: options.UseEma = None,
    num_heads: options.NumHeads = None,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    pool: options.Pool = None,
    act: options.Act = None,
    norm_eps: options.NormEps = None,
    assume_defaults: options.AssumeDefaults = None,
    rate: options.Rate = None,
    reduction_target: options.RateTarget = None,
    merge_at: options.MergeAt = None,
    merge_scale: options.MergeScale = None,
    images: options.Images = None,
    samples: Annotated[
        int | None, typer.Option(help="Compare at most so many images (default: 16).")
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option("-b", "--batch-size", help="Batch sizes (default: 1,2,7, or what it takes)."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 for borderline differences, too.")
    ] = False,
    masked: Annotated[
        bool,
        typer.Option("--masked", help="Also say how far the published training form is from it."),
    ] = False,
    json: options.Json = None,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit report to this file.")] = None,
    save_repro: Annotated[
        Path | None, typer.Option(help="Save the first failing image to this new folder.")
    ] = None,
    repro: Annotated[
        Path | None, typer.Option(help="Check again what --save-repro saved in this folder.")
    ] = None,
) -> None:
    """Compare an exported model in onnxruntime with the reference from its checkpoint.

    The file's own decisions are read and forced on the reference, so that one token within
    rounding of its threshold (borderline) is told from a wrong graph (fail).
    """
    choices = parsing.choices(
        family, timm_name, base_checkpoint, use_ema, num_heads, image_size, mean, std,
        pool, act, norm_eps, assume_defaults, rate, reduction_target, merge_at, merge_scale,
    )  # fmt: skip
    sizes = None if batch_size is None else parsing.integers("--batch-size", batch_size, "1,8")
    parsing.require_outputs([json, junit], [model, checkpoint, base_checkpoint, images])
    beside = {"--images": images, "--samples": samples, "--batch-size": batch_size}
    beside |= {"--masked": masked or None}
    parsing.require_alone("--repro", repro, beside | {"--save-repro": save_repro})
    parsing.require_new_folder(save_repro, [json, junit])
    with spinner() as progress:
        parsing.require_checkable(model, checkpoint, choices, repro)
        from ltmp_export import reports
        from ltmp_export.commands import check as commands_check
        from ltmp_export.files import disk

        if repro is not None:
            found = commands_check.replay(
                repro, model, checkpoint, choices=choices, progress=progress
            )
        else:
            found = commands_check.check(
                *parsing.model_and_checkpoint(model, checkpoint),
                images=images,
                samples=samples,
                batch_sizes=sizes,
                choices=choices,
                save_repro=save_repro,
                strict=strict,
                masked=masked,
                progress=progress,
            )
    warn(*found.warnings)
    write_json(json, found.to_json())
    if junit is not None:
        disk.write_bytes(junit, reports.to_junit(found, strict))
    show(reports.check_summary(found))
    annotate(reports.github_annotations(found, strict))
    if save_repro is not None:
        failed = found.first_failing(strict) is not None
        replay = f"the first failing image is there; again: ltmp check --repro {save_repro}"
        note(f"{save_repro}: {replay if failed else 'not written, no image to blame'}")
    raise typer.Exit(0 if found.passed(strict) else 1)


@app.command()
@reporting_errors
def bench(
    model: options.ExportedModel,
    images: options.Images = None,
    samples: Annotated[
        int | None, typer.Option(help="Time at most so many images (default: all).")
    ] = None,
    batch_size: options.BatchSizes = None,
    threads: options.Threads = None,
    warmup: Annotated[int, typer.Option(help="Runs before the first counted one.")] = 10,
    iterations: Annotated[int, typer.Option(help="Rounds: counted runs of every image.")] = 10,
    providers: options.Providers = "cpu",
    baseline: options.Baseline = "dense",
    scenario: options.Scenario = None,
    side_by_side: options.SideBySide = None,
    precisions: options.OtherPrecisions = None,
    base_checkpoint: options.BaseCheckpoint = None,
    calibration_images: options.OtherCalibration = None,
    roofline: options.Roofline = False,
    profile: options.Profile = False,
    plot: options.Plot = None,
    json: options.Json = None,
    compare: options.Compare = None,
    max_regression: options.MaxRegression = None,
) -> None:
    """Time an exported model per image, against the dense model of the same weights.

    Each model runs in a process of its own, in alternating rounds.
    """
    sizes = None if batch_size is None else parsing.integers("--batch-size", batch_size, "1,8")
    other = None if baseline in ("dense", "none") else Path(baseline)
    read = [
        *(model, images, compare, side_by_side, precisions, base_checkpoint),
        *(calibration_images, other),
    ]
    parsing.require_outputs([json, plot], read)
    parsing.require_beside(
        "--base-checkpoint",
        base_checkpoint,
        "--side-by-side or --precisions",
        side_by_side or precisions,
    )
    parsing.require_beside("--calibration-images", calibration_images, "--precisions", precisions)
    parsing.require_beside("--max-regression", max_regression, "--compare", compare)
    with spinner() as progress:
        from ltmp_export import reports
        from ltmp_export.commands import bench as commands_bench
        from ltmp_export.files import disk
        from ltmp_export.timing import regression, settings

        asked = settings.Settings(
            batch_sizes=sizes,
            threads=threads,
            warmup=warmup,
            iterations=iterations,
            providers=tuple(providers.split(",")),
            scenario=scenario,
            profile=profile,
            roofline=roofline,
        )
        text = "5%" if max_regression is None else max_regression
        allowed = regression.percentage("--max-regression", text)
        earlier = None if compare is None else regression.read(compare, asked)
        if plot is not None:
            reports.require_matplotlib()
        measured = commands_bench.bench(
            model,
            images=images,
            samples=samples,
            baseline=other or (None if baseline == "none" else baseline),
            side_by_side=side_by_side,
            precisions=precisions,
            base_checkpoint=base_checkpoint,
            calibration_images=calibration_images,
            settings=asked,
            progress=progress,
        )
    warn(*measured.warnings)
    write_json(json, measured.to_json())
    if plot is not None:
        disk.write_bytes(plot, reports.plot_png(measured))
    show(reports.bench_summary(measured))
    if earlier is not None:
        changes = regression.compare(earlier, measured, allowed)
        show(reports.compare_summary(changes))
        slower = any(change.verdict == regression.SLOWER for change in changes)
        raise typer.Exit(1 if slower else 0)


@app.command()
@reporting_errors
def inspect(
    file: Annotated[Path, typer.Argument(help="A checkpoint or an exported model.")],
    family: options.Family = None,
    model: options.Model = None,
    base_checkpoint: options.BaseCheckpoint = None,
    use_ema: options.UseEma = None,
    num_heads: options.NumHeads = None,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    pool: options.Pool = None,
    act: options.Act = None,
    norm_eps: options.NormEps = None,
    assume_defaults: options.AssumeDefaults = None,
    rate: options.Rate = None,
    reduction_target: options.RateTarget = None,
    merge_at: options.MergeAt = None,
    merge_scale: options.MergeScale = None,
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

    With --images also how near a checkpoint's decisions are to their thresholds: which share of
    the images a runtime or precision can decide otherwise.
    """
    choices = parsing.choices(
        family, model, base_checkpoint, use_ema, num_heads, image_size, mean, std,
        pool, act, norm_eps, assume_defaults, rate, reduction_target, merge_at, merge_scale,
    )  # fmt: skip
    parsing.require_beside("--samples", samples, "--images", images)
    with spinner() as progress:
        progress("reading")
        from ltmp_export import reports
        from ltmp_export.commands import inspect as commands_inspect

        facts = commands_inspect.inspect(
            file, choices, images=images, samples=samples, progress=progress
        )
    if json:
        typer.echo(reports.to_json(facts), nl=False)
    else:
        show(reports.inspect_summary(facts))


app.command()(reporting_errors(learning.finetune))
app.command()(reporting_errors(learning.calibrate))
app.command(name="eval")(reporting_errors(learning.evaluate))


@app.command()
@reporting_errors
def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Folder for the checkpoint and the model.")
    ] = Path("ltmp-demo"),
) -> None:
    """Export, check and time the embedded digits checkpoint, and say what happened."""
    with spinner() as progress:
        from ltmp_export import reports
        from ltmp_export.commands import demo as commands_demo

        done = commands_demo.demo(folder, progress)
    show(reports.demo_summary(done))
    raise typer.Exit(0 if done.check.passed() else 1)
