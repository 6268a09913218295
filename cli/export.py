"""`ltmp export`: a checkpoint → a checked ONNX model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import ltmp_export
from ltmp_export.graph.targets import TARGETS, require_known
from ltmp_export.plan.outputs import KNOWN
from ltmp_export.statements import wishes
from ltmp_export.statements.choices import Choices

from . import options, parsing
from .stated import METHOD, UNSTATED, stating
from .terminal import show, spinner, warn_of, write_json

# Panels of --help.
_STATIC, _PRECISION, _DECISIONS = "Static shapes", "Precision", "Precision of decisions"


@stating(METHOD, UNSTATED)
def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="Checkpoint of timm, Lightning or Hugging Face, a state_dict, or timm:NAME."
        ),
    ],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The ONNX file to write.")] = Path(
        "model.onnx"
    ),
    opset: Annotated[int, typer.Option(help="Opset to write: 16 to the newest.")] = 17,
    batch_size: Annotated[
        int | None,
        typer.Option("-b", "--batch-size", help="1: single images only, faster (default: any)."),
    ] = None,
    mode: Annotated[
        Literal["dynamic", "static"] | None,
        typer.Option(
            help="static: every shape but the batch is known before running (default: what the "
            "family is).",
            rich_help_panel=_STATIC,
        ),
    ] = None,
    keep_tokens: Annotated[
        str | None,
        typer.Option(
            help="For families with thresholds: the most tokens each block keeps, 160,150,…, or "
            "auto:p99, what 99 % of the --images need, or auto:max.",
            rich_help_panel=_STATIC,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures or .npz for auto:….", rich_help_panel=_STATIC),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(help="Take at most so many of them (default: all).", rich_help_panel=_STATIC),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(
            help="fp16: half the size, for GPUs. int8: a quarter, and about twice as fast on a "
            "CPU.",
            rich_help_panel=_PRECISION,
        ),
    ] = "fp32",
    calibration_images: Annotated[
        Path | None,
        typer.Option(
            help="For int8 and fp16: folder of pictures or .npz like those the model will see.",
            rich_help_panel=_PRECISION,
        ),
    ] = None,
    calibration_samples: Annotated[
        int | None,
        typer.Option(
            help="Take at most so many of them (default: 128).", rich_help_panel=_PRECISION
        ),
    ] = None,
    engine: options.Engine = "local",
    address: options.Address = None,
    workers: options.Computing = 0,
    activation_scales: Annotated[
        Literal["static", "dynamic"],
        typer.Option(
            help="For int8: measured now, or by the file on each batch (an image's result then "
            "depends on its batch).",
            rich_help_panel=_PRECISION,
        ),
    ] = "static",
    int8_form: Annotated[
        Literal["products", "qdq"],
        typer.Option(
            help="For int8: integer products, for onnxruntime on a CPU; or QuantizeLinear and "
            "DequantizeLinear around float32 ones, for TensorRT, QNN, OpenVINO.",
            rich_help_panel=_PRECISION,
        ),
    ] = "products",
    protect: Annotated[
        Literal["all", "auto", "none"] | None,
        typer.Option(
            show_default="all",
            help="Compute what decides about tokens more exactly than the rest; auto, for int8: "
            "only where the --calibration-images show that decisions need it, which is faster.",
            rich_help_panel=_PRECISION,
        ),
    ] = None,
    protect_decisions: Annotated[
        bool | None,
        typer.Option(
            metavar=" ",
            help="The older switch: --protect all or none.",
            rich_help_panel=_DECISIONS,  # of its own: its two long names leave no room for others
        ),
    ] = None,
    io: Annotated[
        Literal["fp32", "fp16"],
        typer.Option(help="For fp16: of images and outputs.", rich_help_panel=_PRECISION),
    ] = "fp32",
    choices: Choices,
    outputs: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help=f"What the file gives, of {', '.join(KNOWN)} (default: logits, without a "
            "classifier features).",
        ),
    ] = None,
    token_counts: Annotated[
        bool, typer.Option("--token-counts", help="Add the output token_counts, (batch, depth).")
    ] = False,
    target: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="RUNTIME",
            help="Write operators in the forms that a runtime needs, of "
            f"{', '.join(TARGETS[:-1])}; {TARGETS[-1]}: in all of them. Costs operators, changes "
            "no result.",
        ),
    ] = None,
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing",
            help="Take pictures, uint8 (batch, height, width, channels) of any size, and resize, "
            "crop and normalise them in the file.",
        ),
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
    parsing.require_outputs(
        [output, json], [checkpoint, choices.base_checkpoint, images, calibration_images]
    )
    require_known(target)
    gives = None if outputs is None else outputs.split(",")
    place = ltmp_export.Place(engine, address, workers)
    with spinner() as progress:
        wishes.require(
            batch_size=batch_size,
            outputs=gives,
            mode=mode,
            keep_tokens=keep_tokens,
            images=images,
            samples=samples,
            precision=precision,
            calibration_images=calibration_images,
            calibration_samples=calibration_samples,
            place=place,
        )
        wishes.require_mode(mode, parsing.require_takeable(checkpoint, choices))
        from ltmp_export import reports
        from ltmp_export.precision.formats import Precision
        from ltmp_export.runtimes import opsets

        protected = parsing.protection(protect, protect_decisions)
        computes = Precision(
            precision,
            protected != "none",
            io,
            activation_scales,
            auto=protected == "auto",
            int8_form=int8_form,
        )
        opsets.require(opset, computes)
        done = ltmp_export.export(
            checkpoint,
            output,
            opset=opset,
            batch_size=batch_size,
            outputs=gives,
            token_counts=token_counts,
            mode=mode,
            keep_tokens=keep_tokens,
            images=images,
            samples=samples,
            precision=computes,
            calibration_images=calibration_images,
            calibration_samples=calibration_samples,
            place=place,
            target=target,
            with_preprocessing=with_preprocessing,
            check=check,
            choices=choices,
            progress=progress,
        )
    warn_of(done)
    write_json(json, done.to_json())
    show(reports.export_summary(done))
