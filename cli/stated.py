"""What a user may state about a checkpoint: the options, and what becomes of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import typer

from ltmp_export import families
from ltmp_export.errors import InputError
from ltmp_export.statements import compression
from ltmp_export.statements.choices import Choices

from . import parsing

R = TypeVar("R")

# Panels of --help.
METHOD, UNSTATED = "Token reduction", "What the checkpoint does not say"

BaseCheckpoint = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Dense weights for a thresholds-only checkpoint; or timm:NAME.",
        rich_help_panel=UNSTATED,
    ),
]


@dataclass(frozen=True)
class Typed:
    """The options as they were typed, each named like the part of `Choices` that it states.

    Their order is the one of `--help`; None where nothing was typed.
    """

    family: Annotated[
        str | None,
        typer.Option(
            help=f"One of {', '.join(families.names())} (default: as the file says).",
            rich_help_panel=METHOD,
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            help="timm name of the dense model, for example deit_small_patch16_224.",
            rich_help_panel=UNSTATED,
        ),
    ] = None
    base_checkpoint: BaseCheckpoint = None
    use_ema: Annotated[
        bool | None,
        typer.Option(
            "--use-ema/--no-ema",
            help="Take the averaged weights (default: if alone).",
            rich_help_panel=UNSTATED,
        ),
    ] = None
    head_name: Annotated[
        str | None,
        typer.Option(
            metavar="LAYER",
            help="The classifier's layer, as the file names it; none for features alone.",
            rich_help_panel=UNSTATED,
        ),
    ] = None
    num_heads: Annotated[
        int | None,
        typer.Option(
            help="Attention heads (default: as the name says, or width / 64 where that is usual).",
            rich_help_panel=UNSTATED,
        ),
    ] = None
    image_size: Annotated[
        str | None,
        typer.Option(
            "--img-size",
            help="Pixels, 224 or 224,160; another size than the checkpoint's resizes its "
            "positions.",
            rich_help_panel=UNSTATED,
        ),
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(help="Normalisation mean, for example 0.5,0.5,0.5.", rich_help_panel=UNSTATED),
    ] = None
    std: Annotated[
        str | None,
        typer.Option(help="Normalisation deviation, likewise.", rich_help_panel=UNSTATED),
    ] = None
    pool: Annotated[
        Literal["token", "avg"] | None,
        typer.Option(
            help="What the classifier sees: the class token, or the average of the patches.",
            rich_help_panel=UNSTATED,
        ),
    ] = None
    act: Annotated[
        Literal["gelu", "gelu_tanh", "quick_gelu", "silu", "relu"] | None,
        typer.Option(help="Activation of the MLPs.", rich_help_panel=UNSTATED),
    ] = None
    norm_eps: Annotated[
        float | None,
        typer.Option(help="Epsilon of every LayerNorm, like 1e-6.", rich_help_panel=UNSTATED),
    ] = None
    assume_defaults: Annotated[
        bool | None,
        typer.Option(
            "--assume-defaults",
            help="Take what is usual where these would be asked for (for scripts; may be wrong).",
            rich_help_panel=UNSTATED,
        ),
    ] = None
    rate: Annotated[
        str | None,
        typer.Option(
            "--r",
            help="Tokens each block loses in m, p, mp and pm: 8, or 8,8,6,…, or 16:-1 for a linear "
            "trend.",
            rich_help_panel=METHOD,
        ),
    ] = None
    reduction_target: Annotated[
        float | None,
        typer.Option(
            "--reduction-target",
            help="Share of the multiply-accumulates to be left, like 0.6: picks r or keep rate.",
            rich_help_panel=METHOD,
        ),
    ] = None
    merge_at: Annotated[
        str | None,
        typer.Option(
            help="Blocks before which PatchMerger's layers stand, or in which others keep or "
            "merge, like 3,6,9.",
            rich_help_panel=METHOD,
        ),
    ] = None
    merge_scale: Annotated[
        Literal["one", "sqrt"] | None,
        typer.Option(
            help="PatchMerger's scores as they are (one), or divided by the root of the width "
            "(default: one; sqrt for vit-pytorch's).",
            rich_help_panel=METHOD,
        ),
    ] = None
    merge_weights: Annotated[
        Literal["uniform", "size", "importance", "similarity"] | None,
        typer.Option(
            metavar="WEIGHTS",
            help="What multiscale_mergence weighs merging patches by: uniform, size, importance or "
            "similarity (default: uniform).",
            rich_help_panel=METHOD,
        ),
    ] = None
    keep_rate: Annotated[
        float | None,
        typer.Option(
            help="Share of the patches that topk, evit and others keep each time, diffrate in each "
            "block, or multiscale_mergence (default there: 0.7).",
            rich_help_panel=METHOD,
        ),
    ] = None
    keep_rule: Annotated[
        Literal["zoo", "official"] | None,
        typer.Option(
            help="How many that is: int(196 times its power), as TokenReduction has it, or a share "
            "of those that are there (default: as the file's script has it, or official).",
            rich_help_panel=METHOD,
        ),
    ] = None
    fuse_token: Annotated[
        bool | None,
        typer.Option(
            "--fuse-token/--no-fuse-token",
            help="Whether the others become one token in evit (default: the file's, or yes).",
            rich_help_panel=METHOD,
        ),
    ] = None
    grid_rounding: Annotated[
        Literal["fma", "plain"] | None,
        typer.Option(
            help="How float32 rounded the grid of heuristic's pattern where it was trained: once, "
            "or the product, too (default: fma).",
            rich_help_panel=METHOD,
        ),
    ] = None
    diffrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="DiffRate's counts for each block, compression_rate.json; with --budget.",
            rich_help_panel=METHOD,
        ),
    ] = None
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Which of them: a budget in that file, or MODEL:BUDGET.",
            rich_help_panel=METHOD,
        ),
    ] = None
    dominant: Annotated[
        int | None,
        typer.Option(
            help="Tokens that visionzip keeps as they are, the class token among them.",
            rich_help_panel=METHOD,
        ),
    ] = None
    contextual: Annotated[
        int | None,
        typer.Option(help="Tokens that it makes of all others.", rich_help_panel=METHOD),
    ] = None
    compression_ratio: Annotated[
        float | None,
        typer.Option(
            help="Share of the patches that a mask of ltm_transformer leaves (default: 0.75).",
            rich_help_panel=METHOD,
        ),
    ] = None
    hard: Annotated[
        bool | None,
        typer.Option(
            "--hard/--soft",
            help="Whether it gives each patch to one target (default: the file's, or soft).",
            rich_help_panel=METHOD,
        ),
    ] = None
    restore: Annotated[
        bool | None,
        typer.Option(
            "--restore/--no-restore",
            help="Whether all its blocks merge, and give the patches back (default: one merges).",
            rich_help_panel=METHOD,
        ),
    ] = None
    merged_position: Annotated[
        Literal["mean", "destination"] | None,
        typer.Option(
            help="Where rotary positions have a merged token: at the mean of its patches, or where "
            "the one lies that others merge into (default: mean).",
            rich_help_panel=UNSTATED,
        ),
    ] = None
    metric_position: Annotated[
        Literal["unrotated", "rotated"] | None,
        typer.Option(
            help="Whether similarity is of keys before rotary positions turn them, or after "
            "(default: unrotated).",
            rich_help_panel=UNSTATED,
        ),
    ] = None

    def choices(self) -> Choices:
        """Their values.

        Raises:
            InputError: One does not parse.
        """
        size, at = self.image_size, self.merge_at
        pixels = None if size is None else parsing.integers("--img-size", size, "224,160")
        blocks = None if at is None else parsing.integers("--merge-at", at, "3,6,9", least=0)
        if pixels is not None and len(pixels) > 2:
            raise InputError(f"--img-size {size}: expected one number, or height,width")
        rates = None if self.diffrate is None else compression.read(self.diffrate, self.budget)
        parsed: dict[str, Any] = {
            "diffrate": rates,
            "image_size": None if pixels is None else (pixels[0], pixels[-1]),
            "mean": None if self.mean is None else parsing.numbers("--mean", self.mean),
            "std": None if self.std is None else parsing.numbers("--std", self.std),
            "merge_at": blocks,
        }
        return Choices(**vars(self) | parsed)


@functools.cache
def _hints() -> dict[str, Any]:
    """The annotations of `Typed`, read once for all commands."""
    return get_type_hints(Typed, include_extras=True)


def stating(*panels: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a command the options of some panels in the place of its parameter `choices`.

    The command is called with all of them, parsed, as that one argument; where the parameter
    stands, they stand in `--help`. What does not parse is refused as by `Typed.choices`.

    Args:
        panels: METHOD, UNSTATED, or both; what another asks for stays unstated.
    """
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in _hints().items()
        if option.__metadata__[0].rich_help_panel in panels
    ]

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        own = inspect.signature(command, eval_str=True)

        @functools.wraps(command)
        def run(**given: Any) -> R:
            typed = Typed(**{option.name: given.pop(option.name) for option in options})
            return command(**given, choices=typed.choices())

        shown = [
            one
            for parameter in own.parameters.values()
            for one in (options if parameter.name == "choices" else [parameter])
        ]
        run.__signature__ = own.replace(parameters=shown)  # type: ignore[attr-defined]
        return run

    return decorate
