"""The commands that make thresholds: by training, and from the scores of some images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from . import options, parsing
from .terminal import show, spinner, training_progress, warn_of, write_json

_STEPS, _DATA, _RUN = "How to train", "Images", options.RUNNING  # panels of --help


def finetune(
    checkpoint: options.Source,
    data: Annotated[
        Path,
        typer.Option(help="Folder with a folder for each class (or train/ and val/), or .npz."),
    ],
    reduction_target: options.ReductionTarget,
    output: Annotated[Path, typer.Option("-o", "--output", help="The checkpoint to write.")] = Path(
        "finetuned.pth.tar"
    ),
    family: options.Learned = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Train the published masked form, not the deployed one.")
    ] = False,
    epochs: Annotated[
        int, typer.Option(help="Passes over the images.", rich_help_panel=_STEPS)
    ] = 1,
    batch_size: Annotated[
        int,
        typer.Option(
            "-b",
            "--batch-size",
            help="Images of a step, over all processes.",
            rich_help_panel=_STEPS,
        ),
    ] = 128,
    accumulate: Annotated[
        int,
        typer.Option(
            help="Parts of a step that a process computes one by one.", rich_help_panel=_STEPS
        ),
    ] = 1,
    lr_merge: Annotated[
        float, typer.Option(help="Learning rate of the merge thresholds.", rich_help_panel=_STEPS)
    ] = 5e-3,
    lr_prune: Annotated[
        float, typer.Option(help="Learning rate of the prune thresholds.", rich_help_panel=_STEPS)
    ] = 5e-6,
    start_merge: Annotated[
        float | None,
        typer.Option(
            help="Where they start (default: the checkpoint's, or 0.9).", rich_help_panel=_STEPS
        ),
    ] = None,
    start_prune: Annotated[
        float | None,
        typer.Option(help="Likewise (default: the checkpoint's, or 0).", rich_help_panel=_STEPS),
    ] = None,
    train_all: Annotated[
        float | None,
        typer.Option(
            metavar="LR",
            help="Train everything else, too, at this rate (AdamW).",
            rich_help_panel=_STEPS,
        ),
    ] = None,
    tau: Annotated[
        float, typer.Option(help="Temperature of a decision's gradient.", rich_help_panel=_STEPS)
    ] = 0.1,
    budget_weight: Annotated[
        float,
        typer.Option(help="Weight of (MAC ratio - target)² in the loss.", rich_help_panel=_STEPS),
    ] = 10.0,
    label_smoothing: Annotated[
        float, typer.Option(help="Of the cross-entropy.", rich_help_panel=_STEPS)
    ] = 0.1,
    validation: Annotated[
        Path | None,
        typer.Option(
            "--val", help="Images to measure on, if not part of --data.", rich_help_panel=_DATA
        ),
    ] = None,
    held_out: Annotated[
        float,
        typer.Option(
            help="Share of --data to measure on, where it is one set.", rich_help_panel=_DATA
        ),
    ] = 0.1,
    augment: Annotated[
        str,
        typer.Option(
            help="Pictures: crop, none, or a policy of timm like rand-m9-mstd0.5.",
            rich_help_panel=_DATA,
        ),
    ] = "crop",
    class_map: options.ClassMap = None,
    class_order: options.ClassOrder = None,
    seed: Annotated[
        int, typer.Option(help="Of order, augmentation and split.", rich_help_panel=_STEPS)
    ] = 0,
    device: options.Device = "auto",
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"],
        typer.Option(
            help="Of the products; decisions are always taken in float32.", rich_help_panel=_STEPS
        ),
    ] = "float32",
    workers: options.Workers = 0,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on where an interrupted run saved its state.", rich_help_panel=_RUN
        ),
    ] = False,
    save_every: Annotated[
        int, typer.Option(help="Steps between two states saved.", rich_help_panel=_RUN)
    ] = 100,
    name: options.Name = None,
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
    json: options.Json = None,
) -> None:
    """Learn the thresholds of a ViT on labelled images, for a share of its multiply-accumulates.

    Only thresholds learn, all weights stay as they are. The mask takes the decisions of the
    deployed model. Afterwards: ltmp export OUTPUT.
    """
    choices = parsing.choices(
        family, model, base_checkpoint, use_ema, num_heads, image_size, mean, std,
        pool, act, norm_eps, assume_defaults,
    )  # fmt: skip
    parsing.require_outputs(
        [output, json], [checkpoint, data, validation, base_checkpoint, class_map]
    )
    first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes, the one that reports
    with training_progress(reduction_target, shown=first) as (progress, watch):
        parsing.require_takeable(checkpoint, choices, dense=True, learn=True)
        from ltmp_export import reports
        from ltmp_export.commands import finetune as commands_finetune
        from ltmp_export.training.settings import Settings

        starts = {"merge": start_merge, "prune": start_prune}
        done = commands_finetune.finetune(
            checkpoint,
            data,
            output,
            Settings(
                reduction_target=reduction_target,
                form="published" if paper else "aligned",
                epochs=epochs,
                batch_size=batch_size,
                accumulate=accumulate,
                lr={"merge": lr_merge, "prune": lr_prune},
                start={kind: value for kind, value in starts.items() if value is not None},
                tau=tau,
                budget_weight=budget_weight,
                label_smoothing=label_smoothing,
                train_all=train_all,
                augment=augment,
                held_out=held_out,
                seed=seed,
                precision=precision,
            ),
            name=name,
            validation=validation,
            class_map=class_map,
            class_order=class_order,
            choices=choices,
            device=device,
            workers=workers,
            resume=resume,
            save_every=save_every,
            progress=progress,
            watch=watch,
        )
    if done is not None:
        warn_of(done)
        write_json(json, done.to_json())
        show(reports.finetune_summary(done))


def calibrate(
    checkpoint: options.Source,
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
    device: options.Device = "auto",
    workers: options.Workers = 0,
    name: options.Name = None,
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
    plot: Annotated[
        Path | None, typer.Option(help="Draw the targets to this PNG (needs matplotlib).")
    ] = None,
    json: options.Json = None,
) -> None:
    """Find thresholds from the scores of some images, without labels or training, in seconds.

    They are moved until the work executed on images held out is the target's, within 0.5 %.
    A fine-tuned checkpoint gets another target: its own thresholds move together.
    """
    choices = parsing.choices(
        family, model, base_checkpoint, use_ema, num_heads, image_size, mean, std,
        pool, act, norm_eps, assume_defaults,
    )  # fmt: skip
    targets = parsing.targets(reduction_target, sweep)
    if sweep is None and output is None:
        output = Path("calibrated.pth.tar")
    parsing.require_outputs([output, plot, json], [checkpoint, images, base_checkpoint, class_map])
    with spinner() as progress:
        parsing.require_takeable(checkpoint, choices, dense=True, learn=True)
        from ltmp_export import reports
        from ltmp_export.calibration.targets import Spread
        from ltmp_export.commands import calibrate as commands_calibrate
        from ltmp_export.files import disk

        if plot is not None:
            reports.require_matplotlib()
        done = commands_calibrate.calibrate(
            checkpoint,
            images,
            targets,
            output,
            spread=Spread(
                merge=None if split is None else parsing.merge_share(split),
                schedule=schedule,
                method=method,
                samples=samples,
                seed=seed,
            ),
            name=name,
            class_map=class_map,
            class_order=class_order,
            choices=choices,
            device=device,
            workers=workers,
            progress=progress,
        )
    warn_of(done)
    write_json(json, done.to_json())
    if plot is not None:
        disk.write_bytes(plot, reports.sweep_png(done))
    show(reports.calibrate_summary(done))


def evaluate(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL.onnx|CHECKPOINT", help="An exported model, a checkpoint, or timm:NAME."
        ),
    ],
    data: Annotated[
        Path, typer.Option(help="Folder with a folder for each class (or val/ of them), or .npz.")
    ],
    samples: Annotated[
        int | None, typer.Option(help="Take at most so many images (default: all).")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("-b", "--batch-size", help="Images at once (default: 8).")
    ] = None,
    threads: options.Threads = None,
    providers: Annotated[
        str | None, typer.Option(help="onnxruntime's execution providers (default: cpu).")
    ] = None,
    class_map: options.ClassMap = None,
    class_order: options.ClassOrder = None,
    workers: options.Workers = 0,
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
    json: options.Json = None,
) -> None:
    """Measure accuracy, tokens and multiply-accumulates on labelled images.

    An exported model runs in onnxruntime, a checkpoint in the eager reference, image by image.
    """
    choices = parsing.choices(
        family, timm_name, base_checkpoint, use_ema, num_heads, image_size, mean, std,
        pool, act, norm_eps, assume_defaults, rate, reduction_target, merge_at, merge_scale,
    )  # fmt: skip
    parsing.require_outputs([json], [model, data, base_checkpoint, class_map])
    with spinner() as progress:
        parsing.require_measurable(model, choices)
        from ltmp_export import reports
        from ltmp_export.commands.eval import evaluate

        done = evaluate(
            model,
            data,
            samples=samples,
            batch_size=batch_size,
            threads=threads,
            providers=None if providers is None else tuple(providers.split(",")),
            class_map=class_map,
            class_order=class_order,
            choices=choices,
            workers=workers,
            progress=progress,
        )
    warn_of(done)
    write_json(json, done.to_json())
    show(reports.eval_summary(done))
