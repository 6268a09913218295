"""`ltmp finetune`: thresholds by training."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from ltmp_export.statements.choices import Choices

from . import options, parsing
from .stated import UNSTATED, stating
from .terminal import show, training_progress, warn_of, write_json

_STEPS = "How to train"  # panel of --help


@stating(UNSTATED)
def finetune(
    checkpoint: options.Source,
    *,
    data: Annotated[
        Path,
        typer.Option(help="Folder with a folder for each class (or train/ and val/), or .npz."),
    ],
    reduction_target: Annotated[
        float, typer.Option(help="Share of the multiply-accumulates to be left, like 0.6.")
    ],
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
            "--val",
            help="Images to measure on, if not part of --data.",
            rich_help_panel=options.IMAGES,
        ),
    ] = None,
    held_out: Annotated[
        float,
        typer.Option(
            help="Share of --data to measure on, where it is one set.",
            rich_help_panel=options.IMAGES,
        ),
    ] = 0.1,
    augment: Annotated[
        str,
        typer.Option(
            help="Pictures: crop, none, or a policy of timm like rand-m9-mstd0.5.",
            rich_help_panel=options.IMAGES,
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
            "--resume",
            help="Go on where an interrupted run saved its state.",
            rich_help_panel=options.RUNNING,
        ),
    ] = False,
    save_every: Annotated[
        int, typer.Option(help="Steps between two states saved.", rich_help_panel=options.RUNNING)
    ] = 100,
    name: options.Name = None,
    choices: Choices,
    json: options.Json = None,
) -> None:
    """Learn the thresholds of a ViT on labelled images, for a share of its multiply-accumulates.

    Only thresholds learn, all weights stay as they are. The mask takes the decisions of the
    deployed model. Afterwards: ltmp export OUTPUT.
    """
    choices = replace(choices, family=family)
    parsing.require_outputs(
        [output, json], [checkpoint, data, validation, choices.base_checkpoint, class_map]
    )
    first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes, the one that reports
    with training_progress(reduction_target, shown=first) as (progress, watch):
        parsing.require_takeable(checkpoint, choices, dense=True, learn=True)
        from ltmp_export import finetune as training
        from ltmp_export import reports

        starts = {"merge": start_merge, "prune": start_prune}
        done = training.finetune(
            checkpoint,
            data,
            output,
            training.Settings(
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
