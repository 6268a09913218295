"""Options that several commands share, and their parsing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from ltmp_export.choices import Choices

# Panels of --help.
UNSTATED, RUNNING = "What the checkpoint does not say", "Running"
METHOD, STATIC = "Token reduction", "Static shapes"

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
        help="ltmp, ltpm, ltm, ltp, m, p, mp, pm or patchmerger, where the file does not say it.",
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
    typer.Option(help="Attention heads (default: width / 64).", rich_help_panel=UNSTATED),
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
        help="Scale of PatchMerger's scores: one, or sqrt to divide by the root of the width.",
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
Json = Annotated[Path | None, typer.Option(help="Write a JSON report to this file.")]


def choices(
    family: str | None = None,
    model: str | None = None,
    base_checkpoint: Path | None = None,
    use_ema: bool | None = None,
    num_heads: int | None = None,
    image_size: str | None = None,
    mean: str | None = None,
    std: str | None = None,
    rate: str | None = None,
    reduction_target: float | None = None,
    merge_at: str | None = None,
    merge_scale: str | None = None,
) -> Choices:
    """What the user stated about the checkpoint.

    Raises:
        InputError: A value does not parse.
    """
    size = None if image_size is None else integers("--img-size", image_size, "224,160")
    at = None if merge_at is None else integers("--merge-at", merge_at, "3,6,9", least=0)
    from ltmp_export.choices import Choices
    from ltmp_export.errors import InputError

    if size is not None and len(size) > 2:
        raise InputError(f"--img-size {image_size}: expected one number, or height,width")
    return Choices(
        family=family,
        model=model,
        base_checkpoint=base_checkpoint,
        use_ema=use_ema,
        num_heads=num_heads,
        image_size=None if size is None else (size[0], size[-1]),
        mean=None if mean is None else _numbers("--mean", mean),
        std=None if std is None else _numbers("--std", std),
        rate=rate,
        reduction_target=reduction_target,
        merge_at=at,
        merge_scale=merge_scale,
    )


def integers(flag: str, text: str, example: str, least: int = 1) -> tuple[int, ...]:
    """Integers of at least `least`, separated by commas.

    Raises:
        InputError: Something else was given.
    """
    from ltmp_export.errors import InputError

    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or min(values) < least:
        raise InputError(
            f"{flag} {text}: expected whole numbers of {least} or more, like {example}"
        )
    return values


def targets(reduction_target: float | None, sweep: str | None) -> tuple[float, ...]:
    """The one target, or those to compare.

    Raises:
        InputError: Neither or both were given, or something that is no number.
    """
    from ltmp_export.errors import InputError

    if sweep is None and reduction_target is not None:
        return (reduction_target,)
    if sweep is None:
        raise InputError("give a target, --reduction-target 0.6, or several, --sweep 0.9,0.8,0.7")
    if reduction_target is not None:
        raise InputError("--sweep has its own targets; drop --reduction-target")
    return _numbers("--sweep", sweep, "0.9,0.8,0.7")


def merge_share(text: str) -> float:
    """The share in `merge=0.7` or `prune=0.3`.

    Raises:
        InputError: Something else was given.
    """
    from ltmp_export.errors import InputError

    kind, _, share = text.partition("=")
    try:
        number = float(share)
    except ValueError:
        number = -1.0
    if kind not in ("merge", "prune") or not 0.0 <= number <= 1.0:
        raise InputError(f"--split {text}: expected a share from 0 to 1, like merge=0.7")
    return number if kind == "merge" else 1.0 - number


def _numbers(flag: str, text: str, example: str = "0.5,0.5,0.5") -> tuple[float, ...]:
    from ltmp_export.errors import InputError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as err:
        raise InputError(f"{flag} {text}: expected numbers, for example {example}") from err


def require_outputs(outputs: Sequence[Path | None], inputs: Sequence[Path | None] = ()) -> None:
    """Check report files before the work, not after it.

    Raises:
        InputError: One cannot be written, or is another file of the same command.
    """
    from ltmp_export import files

    def given(paths: Sequence[Path | None]) -> list[Path]:
        return [path for path in paths if path is not None]

    files.require_outputs(given(outputs), given(inputs))


def model_and_checkpoint(model: Path | None, checkpoint: Path | None) -> tuple[Path, Path]:
    """Both, where both are needed.

    Raises:
        InputError: One was not given.
    """
    if model is None or checkpoint is None:
        from ltmp_export.errors import InputError

        missing = "MODEL.onnx and CHECKPOINT" if model is None else "CHECKPOINT"
        raise InputError(f"{missing} missing: ltmp check MODEL.onnx CHECKPOINT, or --repro DIR")
    return model, checkpoint


def require_alone(flag: str, value: object, others: Mapping[str, object]) -> None:
    """Check that a flag, if it was given, stands without others that it makes meaningless.

    Raises:
        InputError: One of them was given, too.
    """
    given = [name for name, other in others.items() if other is not None]
    if value is not None and given:
        from ltmp_export.errors import InputError

        raise InputError(f"{flag} brings its own images and batch; drop {', '.join(given)}")


def require_beside(flag: str, value: object, needed: str, other: object) -> None:
    """Check that a flag, if it was given, has the one it belongs to.

    Raises:
        InputError: It has not.
    """
    if value is not None and other is None:
        from ltmp_export.errors import InputError

        raise InputError(f"{flag} is about {needed}; give that, too")


def require_new_folder(folder: Path | None, others: Sequence[Path | None]) -> None:
    """Check before the work that a folder can be written, apart from other outputs.

    Raises:
        InputError: It holds something, cannot be made, or is one of the others.
    """
    if folder is not None:
        from ltmp_export import repro
        from ltmp_export.errors import InputError

        repro.require_new(folder)
        if folder.resolve() in [path.resolve() for path in others if path is not None]:
            raise InputError(f"{folder} is also the output of another flag; choose another")
