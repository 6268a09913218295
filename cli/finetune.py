"""`ltmp finetune`: thresholds, or weights under a static plan, by training."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ltmp_export import families
from ltmp_export.errors import InputError
from ltmp_export.statements.choices import Choices

from . import options, parsing
from .stated import METHOD, UNSTATED, stating
from .terminal import show, training_progress, warn_of, write_json

# Panels of --help.
_STEPS, _THRESHOLDS, _WEIGHTS = (
    "How to train",
    f"How thresholds learn ({', '.join(families.learned())})",
    f"How weights learn ({', '.join(families.trainable())})",
)
_OF_THRESHOLDS = (
    *("paper", "lr_merge", "lr_prune", "start_merge", "start_prune"),
    *("train_all", "tau", "budget_weight", "latency_target", "timing"),
)
_OF_WEIGHTS = ("lr", "lr_new", "distil", "bottleneck")


@stating(METHOD, UNSTATED)
def finetune(
    context: typer.Context,
    checkpoint: options.Source,
    *,
    data: Annotated[
        Path,
        typer.Option(help="Folder with a folder for each class (or train/ and val/), or .npz."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The checkpoint to write.")] = Path(
        "finetuned.pth.tar"
    ),
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
    lr: Annotated[
        float, typer.Option(help="Learning rate (AdamW).", rich_help_panel=_WEIGHTS)
    ] = 1e-4,
    lr_new: Annotated[
        float | None,
        typer.Option(
            help="Learning rate of what the reduction has of its own (default: 0.005).",
            rich_help_panel=_WEIGHTS,
        ),
    ] = None,
    distil: Annotated[
        float,
        typer.Option(
            help="Share d of the dense model in the loss: (1 - d) · cross-entropy + d · KL(dense, "
            "reduced).",
            rich_help_panel=_WEIGHTS,
        ),
    ] = 0.0,
    bottleneck: Annotated[
        float,
        typer.Option(
            help="Weight of LTM-Transformer's information bottleneck, like 0.1; from 30 % of the "
            "epochs on, at least the third.",
            rich_help_panel=_WEIGHTS,
        ),
    ] = 0.0,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper",
            help="Train the published masked form, not the deployed one.",
            rich_help_panel=_THRESHOLDS,
        ),
    ] = False,
    lr_merge: Annotated[
        float,
        typer.Option(help="Learning rate of the merge thresholds.", rich_help_panel=_THRESHOLDS),
    ] = 5e-3,
    lr_prune: Annotated[
        float,
        typer.Option(help="Learning rate of the prune thresholds.", rich_help_panel=_THRESHOLDS),
    ] = 5e-6,
    start_merge: Annotated[
        float | None,
        typer.Option(
            help="Where they start (default: the checkpoint's, or 0.9).",
            rich_help_panel=_THRESHOLDS,
        ),
    ] = None,
    start_prune: Annotated[
        float | None,
        typer.Option(
            help="Likewise (default: the checkpoint's, or 0).", rich_help_panel=_THRESHOLDS
        ),
    ] = None,
    train_all: Annotated[
        float | None,
        typer.Option(
            metavar="LR",
            help="Train everything else, too, at this rate (AdamW).",
            rich_help_panel=_THRESHOLDS,
        ),
    ] = None,
    tau: Annotated[
        float,
        typer.Option(help="Temperature of a decision's gradient.", rich_help_panel=_THRESHOLDS),
    ] = 0.1,
    latency_target: Annotated[
        float | None,
        typer.Option(
            help="Share of the dense model's time, by --timing, in place of --reduction-target.",
            rich_help_panel=_THRESHOLDS,
        ),
    ] = None,
    timing: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Times by token counts, from ltmp bench --table or ltmp calibrate --json.",
            rich_help_panel=_THRESHOLDS,
        ),
    ] = None,
    budget_weight: Annotated[
        float,
        typer.Option(
            help="Weight of (MAC or time ratio - target)² in the loss.", rich_help_panel=_THRESHOLDS
        ),
    ] = 10.0,
    choices: Choices,
    json: options.Json = None,
) -> None:
    """Train a token-reducing ViT on labelled images: its thresholds, or weights of a static one.

    Families with thresholds learn these alone, for --reduction-target of the multiply-accumulates;
    the mask takes the decisions of the deployed model. Of ltm_transformer and multiscale_mergence
    the whole model is trained. Afterwards: ltmp export OUTPUT.
    """
    parsing.require_outputs(
        [output, json], [checkpoint, data, validation, choices.base_checkpoint, class_map, timing]
    )
    first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes, the one that reports
    _require_timing(latency_target, timing, choices.reduction_target)
    target = choices.reduction_target if latency_target is None else latency_target
    with training_progress(target, shown=first) as (progress, watch):
        asked = replace(choices, reduction_target=None)  # of thresholds it says nothing
        family = parsing.require_takeable(checkpoint, asked, dense=True, train=True)
        from ltmp_export import finetune as training
        from ltmp_export import reports

        running: dict[str, Any] = {
            "epochs": epochs,
            "batch_size": batch_size,
            "accumulate": accumulate,
            "label_smoothing": label_smoothing,
            "augment": augment,
            "held_out": held_out,
            "seed": seed,
            "precision": precision,
        }
        settings: training.Settings | training.StaticSettings
        if families.load(family).start:
            _refuse_of(context, _OF_WEIGHTS, family, "weights under a static plan")
            settings = training.Settings(
                reduction_target=_required(target, family),
                form="published" if paper else "aligned",
                lr={"merge": lr_merge, "prune": lr_prune},
                start=_stated({"merge": start_merge, "prune": start_prune}),
                tau=tau,
                budget_weight=budget_weight,
                train_all=train_all,
                **running,
            )
        else:
            _refuse_of(context, _OF_THRESHOLDS, family, "thresholds")
            settings = training.StaticSettings(
                lr=lr, lr_new=lr_new, distil=distil, bottleneck=bottleneck, **running
            )
            asked = choices
        done = training.finetune(
            checkpoint,
            data,
            output,
            settings,
            name=name,
            validation=validation,
            timing=timing,
            class_map=class_map,
            class_order=class_order,
            choices=asked,
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


def _require_timing(share: float | None, timing: Path | None, macs: float | None) -> None:
    """Check that a share of time comes with times, and is the only target.

    Raises:
        InputError: It is not.
    """
    if share is None:
        parsing.require_beside("--timing", timing, "--latency-target", share)
        return
    if timing is None:
        raise InputError(
            "--latency-target needs --timing FILE.json, the times by token counts that 'ltmp bench "
            "MODEL.onnx --table' or 'ltmp calibrate --latency-target … --json' writes"
        )
    if macs is not None:
        raise InputError("--latency-target stands in the place of --reduction-target; give one")


def _required(target: float | None, family: str) -> float:
    """What thresholds learn for.

    Raises:
        InputError: It is not stated.
    """
    if target is None:
        raise InputError(
            f"thresholds of {family} learn for a share of the multiply-accumulates; state it, like "
            "--reduction-target 0.6"
        )
    return target


def _refuse_of(context: typer.Context, names: tuple[str, ...], family: str, whose: str) -> None:
    """Check that no flag was typed that is for the training of other families.

    Raises:
        InputError: One was.
    """
    for name in names:
        source = context.get_parameter_source(name)  # of click's, or of Typer's copy of it
        if source is not None and source.name == "COMMANDLINE":
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} is for {whose}, which {family} has none of; drop it")


def _stated(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
