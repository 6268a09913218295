"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

# Panels of --help.
UNSTATED, RUNNING = "What the checkpoint does not say", "Running"
METHOD, STATIC, PRECISION = "Token reduction", "Static shapes", "Precision"
DECISIONS = "Precision of decisions"

MemoryLimit = Annotated[
    float, typer.Option(help="GiB that the weights or images of one file may take in memory.")
]
Checkpoint = Annotated[
    Path,
    typer.Argument(
        help="Checkpoint of timm, Lightning or Hugging Face, a state_dict, or timm:NAME."
    ),
]
Source = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT", help="A plain ViT or a fine-tuned checkpoint; or timm:NAME."
    ),
]
ReductionTarget = Annotated[
    float, typer.Option(help="Share of the multiply-accumulates to be left, like 0.6.")
]
ClassMap = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Class folders' names in the order of the classes, a line each.",
        rich_help_panel="Images",
    ),
]
ClassOrder = Annotated[
    Literal["natural", "string"] | None,
    typer.Option(
        help="Class folders in natural order (2 before 10: timm's) or string order (10 before 2: "
        "torchvision's).",
        rich_help_panel="Images",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.", rich_help_panel=RUNNING)]
Name = Annotated[
    str | None,
    typer.Option(
        help="What to call the model, where neither file nor timm does.", rich_help_panel=UNSTATED
    ),
]
Workers = Annotated[
    int,
    typer.Option(help="Processes that read images beside this one.", rich_help_panel=RUNNING),
]
ExportedModel = Annotated[Path, typer.Argument(help="ONNX file written by 'ltmp export'.")]
CheckedModel = Annotated[
    Path | None,
    typer.Argument(
        metavar="MODEL.onnx", help="ONNX file of 'ltmp export'; not needed with --repro."
    ),
]
CheckedCheckpoint = Annotated[
    Path | None,
    typer.Argument(metavar="CHECKPOINT", help="The checkpoint it was exported from; likewise."),
]
Family = Annotated[
    str | None,
    typer.Option(
        help="ltmp, ltpm, ltm, ltp, m, p, mp, pm or patchmerger (default: as the file says).",
        rich_help_panel=METHOD,
    ),
]
Learned = Annotated[
    str | None,
    typer.Option(help="ltmp, ltpm, ltm or ltp (default: the checkpoint's own, else ltmp)."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        help="timm name of the dense model, for example deit_small_patch16_224.",
        rich_help_panel=UNSTATED,
    ),
]
BaseCheckpoint = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Dense weights for a thresholds-only checkpoint; or timm:NAME.",
        rich_help_panel=UNSTATED,
    ),
]
UseEma = Annotated[
    bool | None,
    typer.Option(
        "--use-ema/--no-ema",
        help="Take the averaged weights (default: if alone).",
        rich_help_panel=UNSTATED,
    ),
]
NumHeads = Annotated[
    int | None,
    typer.Option(
        help="Attention heads (default: as the name says, or width / 64 where that is usual).",
        rich_help_panel=UNSTATED,
    ),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        "--img-size",
        help="Pixels, 224 or 224,160; another size than the checkpoint's resizes its positions.",
        rich_help_panel=UNSTATED,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(help="Normalisation mean, for example 0.5,0.5,0.5.", rich_help_panel=UNSTATED),
]
Std = Annotated[
    str | None, typer.Option(help="Normalisation deviation, likewise.", rich_help_panel=UNSTATED)
]
Pool = Annotated[
    Literal["token", "avg"] | None,
    typer.Option(
        help="What the classifier sees: the class token, or the average of the patches.",
        rich_help_panel=UNSTATED,
    ),
]
Act = Annotated[
    Literal["gelu", "gelu_tanh", "quick_gelu", "silu", "relu"] | None,
    typer.Option(help="Activation of the MLPs.", rich_help_panel=UNSTATED),
]
NormEps = Annotated[
    float | None,
    typer.Option(help="Epsilon of every LayerNorm, like 1e-6.", rich_help_panel=UNSTATED),
]
AssumeDefaults = Annotated[
    bool | None,
    typer.Option(
        "--assume-defaults",
        help="Take what is usual where these would be asked for (for scripts; may be wrong).",
        rich_help_panel=UNSTATED,
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(help="Folder of pictures or .npz (default: embedded or synthetic ones)."),
]
BatchSizes = Annotated[
    str | None,
    typer.Option(
        "-b", "--batch-size", help="Batch sizes to time, for example 1,8,32 (default: 1)."
    ),
]
Threads = Annotated[
    int | None, typer.Option(help="Threads of an operator (default: all processors).")
]
Providers = Annotated[
    str,
    typer.Option(
        help="onnxruntime execution providers, by name or its beginning; the first must run."
    ),
]
Baseline = Annotated[
    str, typer.Option(help="An ONNX file to compare with; 'dense' makes it; 'none'.")
]
Scenario = Annotated[
    Literal["single-stream", "offline"] | None,
    typer.Option(help="One image after the other, or images per second at batches 1,8,32."),
]
SideBySide = Annotated[
    Path | None,
    typer.Option(
        metavar="CHECKPOINT",
        help="Also time what one would pick instead: eager PyTorch and a literal export of this "
        "checkpoint, OpenVINO.",
    ),
]
OtherPrecisions = Annotated[
    Path | None,
    typer.Option(
        metavar="CHECKPOINT",
        help="Also time this checkpoint in the other precisions (fp32, fp16, int8), and the dense "
        "model in int8.",
    ),
]
OtherCalibration = Annotated[
    Path | None,
    typer.Option(
        metavar="IMAGES",
        help="For the int8 of --precisions: folder of pictures or .npz like those the model will "
        "see.",
    ),
]
Roofline = Annotated[
    bool, typer.Option("--roofline", help="Also time the linear layers alone (costs a third).")
]
Profile = Annotated[
    bool, typer.Option("--profile", help="Also take the time of each operator and block.")
]
Plot = Annotated[
    Path | None, typer.Option(help="Draw time over tokens kept to this PNG (needs matplotlib).")
]
Compare = Annotated[
    Path | None,
    typer.Option(metavar="OLD.json", help="An earlier --json; exit 1 if this run is slower."),
]
MaxRegression = Annotated[
    str | None, typer.Option(help="The change that --compare allows (default: 5%).")
]
Rate = Annotated[
    str | None,
    typer.Option(
        "--r",
        help="Tokens each block loses in m, p, mp and pm: 8, or 8,8,6,…, or 16:-1 for a linear "
        "trend.",
        rich_help_panel=METHOD,
    ),
]
RateTarget = Annotated[
    float | None,
    typer.Option(
        "--reduction-target",
        help="Share of the multiply-accumulates to be left, like 0.6: picks --r.",
        rich_help_panel=METHOD,
    ),
]
MergeAt = Annotated[
    str | None,
    typer.Option(
        help="Blocks before which PatchMerger's layers stand, like 3,6,9.",
        rich_help_panel=METHOD,
    ),
]
MergeScale = Annotated[
    Literal["one", "sqrt"] | None,
    typer.Option(
        help="PatchMerger's scores as they are (one), or divided by the root of the width "
        "(default: one; sqrt for vit-pytorch's).",
        rich_help_panel=METHOD,
    ),
]
Mode = Annotated[
    Literal["dynamic", "static"] | None,
    typer.Option(
        help="static: every shape but the batch is known before running (default: what the "
        "family is).",
        rich_help_panel=STATIC,
    ),
]
KeepTokens = Annotated[
    str | None,
    typer.Option(
        help="For families with thresholds: the most tokens each block keeps, 160,150,…, or "
        "auto:p99, what 99 % of the --images need, or auto:max.",
        rich_help_panel=STATIC,
    ),
]
BudgetImages = Annotated[
    Path | None,
    typer.Option(help="Folder of pictures or .npz for auto:….", rich_help_panel=STATIC),
]
BudgetSamples = Annotated[
    int | None,
    typer.Option(help="Take at most so many of them (default: all).", rich_help_panel=STATIC),
]
Kind = Annotated[
    Literal["fp32", "fp16", "int8"],
    typer.Option(
        "--precision",
        help="fp16: half the size, for GPUs. int8: a quarter, and about twice as fast on a CPU.",
        rich_help_panel=PRECISION,
    ),
]
CalibrationImages = Annotated[
    Path | None,
    typer.Option(
        help="For int8 and fp16: folder of pictures or .npz like those the model will see.",
        rich_help_panel=PRECISION,
    ),
]
CalibrationSamples = Annotated[
    int | None,
    typer.Option(help="Take at most so many of them (default: 128).", rich_help_panel=PRECISION),
]
ActivationScales = Annotated[
    Literal["static", "dynamic"],
    typer.Option(
        help="For int8: measured now, or by the file on each batch (an image's result then depends "
        "on its batch).",
        rich_help_panel=PRECISION,
    ),
]
ProtectDecisions = Annotated[
    bool,
    typer.Option(
        metavar=" ",
        help="Compute what decides about tokens more exactly than the rest.",
        rich_help_panel=DECISIONS,  # of its own: its two long names leave no room for others
    ),
]
InputOutput = Annotated[
    Literal["fp32", "fp16"],
    typer.Option("--io", help="For fp16: of images and logits.", rich_help_panel=PRECISION),
]
Json = Annotated[Path | None, typer.Option(help="Write a JSON report to this file.")]
