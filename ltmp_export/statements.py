"""What is said about a ViT that its weights do not tell, and who says it.

The user's flags come first, then the file: its training script's arguments (timm's, DeiT's, MAE's,
this tool's own), or the configuration beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ltmp_export import positions
from ltmp_export.choices import Choices
from ltmp_export.errors import InputError
from ltmp_export.positions import Size
from ltmp_export.vit import ACTIVATIONS, POOLS

_POOLS = (*POOLS, "avgmax", "max", "map")  # timm's; those that are not supported are refused later
_ACTIVATIONS = {"quickgelu": "quick_gelu", "swish": "silu"} | {name: name for name in ACTIVATIONS}


class Said(NamedTuple):
    """A value, and where it stands: a flag, or a place in the file."""

    value: Any
    where: str


class Answer(NamedTuple):
    """A fact, where it is from, and whether it was only assumed."""

    value: Any
    where: str
    assumed: bool = False


@dataclass(frozen=True)
class Statements:
    """What is said; None where nobody says it.

    Attributes:
        heads: Attention heads.
        pool: timm's `global_pool`.
        act: One of `vit.ACTIVATIONS`.
        norm_eps: Epsilon of every LayerNorm.
        stored_size: (height, width) of the images, as the file says.
        image_size: The same as the user wants them.
        unplaced: Whether the tokens before the patches have no position embedding.
        trained: Whether the file has the arguments of the run that made it, so that what they
            leave out was left as the model's name has it.
        authors: Whether it is a file of the LTMP authors' training script, whose models have 64
            channels a head.
        assume_defaults: Whether to take what is usual where nobody says it.
    """

    heads: Said | None = None
    pool: Said | None = None
    act: Said | None = None
    norm_eps: Said | None = None
    stored_size: Size | None = None
    image_size: Size | None = None
    unplaced: bool | None = None
    trained: bool = False
    authors: bool = False
    assume_defaults: bool = False


def gather(args: Mapping[str, Any], choices: Choices, *, authors: bool = False) -> Statements:
    """What the user and the file say.

    Args:
        args: The file's own words, see `dialects.Dialect.args`.
        choices: The user's.
        authors: See `Statements`.

    Raises:
        InputError: The user states what there is not.
    """
    _require_choices(choices)
    inner = args.get("model_kwargs")
    words = {**(inner if isinstance(inner, Mapping) else {}), **args}
    unplaced = words.get("no_embed_class")
    return Statements(
        heads=_first(Said(choices.num_heads, "--num-heads"), _whole(words, "num_heads")),
        pool=_first(Said(choices.pool, "--pool"), _pool(words)),
        act=_first(Said(choices.act, "--act"), _act(words)),
        norm_eps=_first(Said(choices.norm_eps, "--norm-eps"), _eps(words)),
        stored_size=_image_size(words),
        image_size=choices.image_size,
        unplaced=unplaced if isinstance(unplaced, bool) else None,
        trained=bool(args),
        authors=authors,
        assume_defaults=bool(choices.assume_defaults),
    )


def _require_choices(choices: Choices) -> None:
    for flag, value, known in (
        ("--pool", choices.pool, POOLS),
        ("--act", choices.act, ACTIVATIONS),
    ):
        if value is not None and value not in known:
            raise InputError(f"{flag} {value}: expected {', '.join(known)}")
    if choices.norm_eps is not None and not 0 < choices.norm_eps < 1:
        raise InputError(f"--norm-eps {choices.norm_eps:g}: expected a number between 0 and 1")


def _first(*said: Said | None) -> Said | None:
    return next((one for one in said if one is not None and one.value is not None), None)


def _whole(words: Mapping[str, Any], key: str) -> Said | None:
    value = words.get(key)
    return Said(value, f"args.{key}") if type(value) is int and value > 0 else None


def _pool(words: Mapping[str, Any]) -> Said | None:
    """Timm's `gp` or `global_pool`; MAE's scripts have a switch of the second name."""
    for key in ("gp", "global_pool"):
        value = words.get(key)
        if isinstance(value, bool):
            value = "avg" if value else "token"
        if isinstance(value, str) and value in _POOLS:
            return Said(value, f"args.{key}")
    return None


def _act(words: Mapping[str, Any]) -> Said | None:
    for key in ("act", "act_layer"):
        value = words.get(key)
        if isinstance(value, str) and value in _ACTIVATIONS:
            return Said(_ACTIVATIONS[value], f"args.{key}")
    return None


def _eps(words: Mapping[str, Any]) -> Said | None:
    value = words.get("norm_eps")
    return Said(value, "args.norm_eps") if type(value) is float and 0 < value < 1 else None


def _image_size(words: Mapping[str, Any]) -> Size | None:
    """(height, width) from `input_size` or `img_size`; anything else is not a statement.

    timm's `input_size` is channels, height and width; DeiT's and MAE's is a side.
    """
    size, listed = words.get("img_size"), words.get("input_size")
    if isinstance(listed, (list, tuple)) and len(listed) == 3:
        size = tuple(listed[1:])
    elif size is None and type(listed) is int:
        size = listed
    if type(size) is int:
        size = (size, size)
    if isinstance(size, (list, tuple)) and len(size) == 2:
        height, width = size
        whole = type(height) is int and type(width) is int
        if whole and min(height, width) > 0 and max(height, width) <= positions.MOST_PIXELS:
            return (height, width)
    return None


# How what is assumed is told, by timm's word for it, with the flag that states it.
_WORDS = {
    "num_heads": "{} heads (--num-heads)",
    "act": "activation {} (--act)",
    "norm_eps": "LayerNorm epsilon {:g} (--norm-eps)",
    "pool": "{} pooling (--pool)",
    "mean": "mean {} (--mean)",
    "std": "std {} (--std)",
    "merge_scale": "PatchMerger's scores scaled by {} (--merge-scale)",
    "merge_at": "PatchMerger before blocks {} (--merge-at)",
}
_VALUES = {"gelu": "exact GELU", "token": "class-token", "avg": "average"}


def spoken(assumed: Mapping[str, Any]) -> tuple[str, ...]:
    """What was assumed, for a person."""
    told = []
    for key, value in assumed.items():
        words = _WORDS.get(key, f"{key} {{}}")
        shown = ",".join(map(str, value)) if isinstance(value, (tuple, list)) else value
        told.append(words.format(_VALUES.get(shown, shown) if isinstance(shown, str) else shown))
    return tuple(told)
