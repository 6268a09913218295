"""What is said about a ViT that its weights do not tell, and who says it.

The user's flags come first, then the file: its training script's arguments (timm's, DeiT's, MAE's,
this tool's own), or the configuration beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ltmp_export.errors import InputError
from ltmp_export.plan.geometry import ACTIVATIONS, MOST_PIXELS, POOLS, Size
from ltmp_export.statements.choices import Choices

CONFIG = "config.json"  # beside the weights, as Hugging Face has it
INCLUDE = "pool_include_prefix"
GATES = ("first", "last")
ATTENTIONS = "parallel_attentions"  # of a block, as a library's names tell
TIMM_EPS = 1e-6  # of the LayerNorm that timm calls "layernorm"
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
        heads: Attention heads; of one attention, where several stand side by side.
        attentions: How many do.
        usual_heads: What a model of the name in `args.model` usually has, for a question; or "".
        pool: timm's `global_pool`.
        act: One of `plan.geometry.ACTIVATIONS`.
        norm_eps: Epsilon of every LayerNorm.
        gate: Which half of a packed MLP's first layer is the gate: "first" or "last".
        stored_size: (height, width) of the images, as the file says.
        usual_size: The same as its configuration has it for the model it began with.
        image_size: The same as the user wants them.
        unplaced: Whether the tokens before the patches have no position embedding.
        trained: Whether the file has arguments of timm's script, whose pooling, where they leave
            it out, is the one of the model's name.
        arguments: Of timm's model, where the file states some that are not seen in its weights.
        authors: Whether it is a file of the LTMP authors' training script, whose models have 64
            channels a head.
        assume_defaults: Whether to take what is usual where nobody says it.
    """

    heads: Said | None = None
    attentions: int = 1
    usual_heads: str = ""
    pool: Said | None = None
    act: Said | None = None
    norm_eps: Said | None = None
    gate: Said | None = None
    stored_size: Size | None = None
    usual_size: Size | None = None
    image_size: Size | None = None
    unplaced: bool | None = None
    trained: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    authors: bool = False
    assume_defaults: bool = False


def gather(
    args: Mapping[str, Any],
    choices: Choices,
    *,
    authors: bool = False,
    configured: Mapping[str, str] | None = None,
) -> Statements:
    """What the user and the file say.

    Args:
        args: The file's own words, see `dialects.Dialect.args`.
        choices: The user's.
        authors: See `Statements`.
        configured: Where those of these words stand that are not arguments of a script.

    Raises:
        InputError: The user states what there is not, or the file what is not supported.
    """
    _require_choices(choices)
    inner = args.get("model_kwargs")
    arguments = {k: v for k, v in inner.items() if k} if isinstance(inner, Mapping) else {}
    words = Words({**arguments, **args}, configured or {})
    arguments[INCLUDE] = words.get(INCLUDE)
    _require_supported(words)
    unplaced, many = words.get("no_embed_class"), _whole(words, ATTENTIONS)
    return Statements(
        heads=_first(Said(choices.num_heads, "--num-heads"), _whole(words, "num_heads")),
        attentions=1 if many is None else many.value,
        usual_heads=_usual_heads(words.get("model")),
        pool=_first(Said(choices.pool, "--pool"), _pool(words)),
        act=_first(Said(choices.act, "--act"), _act(words)),
        norm_eps=_first(Said(choices.norm_eps, "--norm-eps"), _eps(words)),
        gate=words.said("gate", words["gate"]) if words.get("gate") in GATES else None,
        stored_size=_size(words.get("img_size")) or _input_size(words),
        usual_size=_size(words.get("usual_size")),
        image_size=choices.image_size,
        unplaced=unplaced if isinstance(unplaced, bool) else None,
        trained="gp" in args,
        arguments={k: v for k, v in arguments.items() if k in _ARGUMENTS and _is_plain(v)},
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


class Words(dict[str, Any]):
    """The words of a file, and where each stands."""

    def __init__(self, words: Mapping[str, Any], configured: Mapping[str, str]) -> None:
        super().__init__(words)
        self.configured = configured

    def said(self, key: str, value: Any) -> Said:
        """A value under one of the words."""
        return Said(value, place(key, self.configured))


def place(key: str, configured: Mapping[str, str]) -> str:
    """Where a word of a file stands: as the mapping has it, else among its arguments."""
    return configured.get(key, f"args.{key}")


# Arguments of timm's ViT that its weights do not show, or only in part.
_ARGUMENTS = (
    *("embed_dim", "num_heads", "mlp_ratio", "qkv_bias", "qk_norm", "proj_bias", "init_values"),
    *("pre_norm", "final_norm", "fc_norm", "no_embed_class", "scale_attn_norm", "scale_mlp_norm"),
    INCLUDE,
)
_HEADS = {"t": 3, "s": 6, "b": 12, "l": 16}  # of DeiT's and ViT's sizes
_OTHER_MODEL = ("block_fn", "mlp_layer", "attn_layer", "rope")


def _is_plain(value: Any) -> bool:
    return type(value) in (int, float, bool)


def _require_supported(words: Words) -> None:
    """Check that the file does not state what would make another model of the weights."""
    stated = {key: words.get(key) for key in _OTHER_MODEL if words.get(key)}
    norm = words.get("norm_layer")
    if isinstance(norm, str) and norm not in ("", "layernorm"):
        stated["norm_layer"] = norm
    for key, value in stated.items():
        where = words.said(key, value).where
        raise InputError(f"the file states {key} {str(value)[:40]!r} ({where}), not supported here")


def _whole(words: Words, key: str) -> Said | None:
    value = words.get(key)
    return words.said(key, value) if type(value) is int and value > 0 else None


def _usual_heads(name: object) -> str:
    """The number in a name's usual meaning, and the name."""
    size = re.search(r"(?:^|_)(tiny|small|base|large)(?:_|$)|^deit-([tsb])$", str(name)[:200])
    if size is None:
        return ""
    return f" {_HEADS[(size[1] or size[2])[0]]} (usual of {name})"


def _pool(words: Words) -> Said | None:
    """Timm's `gp` or `global_pool`; MAE's scripts have a switch of the second name."""
    for key in ("gp", "global_pool"):
        value = words.get(key)
        if isinstance(value, bool):
            value = "avg" if value else "token"
        if isinstance(value, str) and value:
            return words.said(key, value)
    return None


def _act(words: Words) -> Said | None:
    for key in ("act", "act_layer"):
        value = words.get(key)
        if isinstance(value, str) and value:
            return words.said(key, _ACTIVATIONS.get(value.lower(), value))
    return None


def _eps(words: Words) -> Said | None:
    value = words.get("norm_eps")
    if type(value) is float and 0 < value < 1:
        return words.said("norm_eps", value)
    return words.said("norm_layer", TIMM_EPS) if words.get("norm_layer") == "layernorm" else None


def _input_size(words: Words) -> Size | None:
    """DeiT's and MAE's side, or timm's channels, height and width."""
    value = words.get("input_size")
    if isinstance(value, (list, tuple)) and len(value) == 3:
        return _size(tuple(value[1:]))
    return _size(value)


def _size(value: Any) -> Size | None:
    """(height, width) from a side or both; anything else is not a statement."""
    if type(value) is int:
        value = (value, value)
    if isinstance(value, (list, tuple)) and len(value) == 2:
        height, width = value
        whole = type(height) is int and type(width) is int
        if whole and min(height, width) > 0 and max(height, width) <= MOST_PIXELS:
            return (height, width)
    return None


# How what is assumed is told, by timm's word for it, with the flag that states it.
_WORDS = {
    "head_name": "classifier {} (--head-name)",
    "num_heads": "{} heads (--num-heads)",
    "act": "activation {} (--act)",
    "norm_eps": "LayerNorm epsilon {:g} (--norm-eps)",
    "pool": "{} pooling (--pool)",
    "gate": "the gate in the {} half of mlp.fc1 (--model)",
    "mean": "mean {} (--mean)",
    "std": "std {} (--std)",
    "merge_scale": "PatchMerger's scores scaled by {} (--merge-scale)",
    "merge_at": "PatchMerger before blocks {} (--merge-at)",
    "merging_blocks": "merging in blocks {} (--merge-at)",
    "merge_weights": "{} weights of what merges (--merge-weights)",
    "keep_rate": "keep rate {:g} (--keep-rate)",
    "compression_ratio": "compression ratio {:g} (--compression-ratio)",
    "masked_block": "merging in block {} (--merge-at)",
    "masks": "{} masks (--hard)",
    "grid_rounding": "a grid rounded as by {}, which depends on where it was trained "
    "(--grid-rounding)",
    "behind": "{} behind the block (--restore)",
    "merged_position": "merged tokens at the {} of their patches (--merged-position)",
    "metric_position": "similarity of {} keys (--metric-position)",
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
