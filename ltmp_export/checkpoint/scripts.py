"""What the training scripts of token-reducing ViTs write beside the weights (METHOD §2).

    TokenReduction     args with reduction_loc, keep_rate and model (`topk_tiny_patch16_224`), the
    (the zoo)          key ema_best: whether the averaged weights are those that count
    TokenReductionPT   the same, no averaged weights; model names the backbone, too
                       (`evit_deit3_small_patch16_224`)
    EViT               args with base_keep_rate, drop_loc and fuse_token
    DynamicViT         weights of predictors, args with base_rate, the key best
    DyMU               a buffer `threshold` in each block, under names of open_clip, timm or
                       Hugging Face

The method is the first word of `args.model`; how many patches it keeps is a rule of the script, not
of the method, so a file that has marks of two scripts is refused unless its rule is stated.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ltmp_export.checkpoint import description
from ltmp_export.errors import InputError
from ltmp_export.plan import kept

BEST = "ema_best"  # of the zoo's files: whether the averaged weights are the ones that count
REPOSITORIES = {
    "TokenReduction": "JoakimHaurum/TokenReduction",
    "TokenReductionPT": "noyaboy/TokenReductionPT",
    "EViT": "youweiliang/evit",
    "DynamicViT": "raoyongming/DynamicViT",
    "DyMU": "MikeWangWZHL/dymu",
}
ZOO, PT, EVIT, DYNAMICVIT, DYMU = REPOSITORIES

# By the first word of args.model, the family.
METHODS = {
    "topk": "topk",
    "ats": "ats",
    "evit": "evit",
    "tome": "m",
    "patchmerger": "patchmerger",
    "dyvit": "dynamicvit",
    "sit": "sit",
    "sinkhorn": "sinkhorn",
    "heuristic": "heuristic",
    "dpcknn": "dpcknn",
    "kmedoids": "kmedoids",
}
_OF_ZOO = ("topk", "evit", "dyvit", "ats", "tome", "sit", "patchmerger", "sinkhorn", "kmedoids",
           "heuristic", "dpcknn")  # fmt: skip
_WITH_LISTS = ("topk", "evit", "dyvit", "ats")  # whose code takes a share for each place
_PT_METHODS = ("topk", "evit")  # whose rules in TokenReductionPT are known
_SIZES = r"(tiny|small|base|large)(?![a-z])"
_LONGEST_ARGUMENT = 1000  # characters, far more than a list of blocks
_PT_ARGUMENTS = frozenset(("ifa_head", "clc", "num_clr", "viz_mode"))


@dataclass(frozen=True)
class Script:
    """What a script says of the reduction.

    Attributes:
        name: Whose script, one of `REPOSITORIES`.
        family: One of `families.names()`.
        said: By the names of `Choices`, and by others that no user states.
        where: Of these, the arguments they stand in.
        doubt: Why the rule is open, for a file with marks of two scripts; "" where it is not.
    """

    name: str
    family: str
    said: Mapping[str, Any]
    where: Mapping[str, str] = field(default_factory=dict)
    doubt: str = ""

    def of(self, patches: int, trained: int | None = None) -> dict[str, Any]:
        """What it says of a model.

        Args:
            patches: Of the model; `counts` are the tokens that its code makes of so many.
            trained: Patches of the images it was trained on, of which its layers make `made`.
        """
        rate, at = (self.said.get(name) for name in ("keep_rate", "merge_at"))
        found = dict(self.said)
        if self.name == ZOO and isinstance(rate, (int, float)) and 0 < rate <= 1:
            found["counts"] = kept.by_zoo(rate, len(at or ()), patches)
            if trained is not None:
                found["made"] = kept.by_zoo(rate, len(at or ()), trained)
        return found

    @property
    def names_methods(self) -> bool:
        """Whether `args.model` is a method with a size, and no name of a model."""
        return self.name in (ZOO, PT)

    @property
    def reason(self) -> str:
        """How the family is known."""
        if self.name == DYMU:
            return f"thresholds of blocks as {REPOSITORIES[DYMU]} saves them"
        return f"as the arguments of {REPOSITORIES[self.name]} say"


def told(path: Path, top: Mapping[Any, Any], args: Mapping[str, Any]) -> Script | None:
    """The script that wrote a file, if it is one of these.

    Args:
        path: The file, for messages.
        top: Its top level.
        args: The arguments it holds.

    Raises:
        InputError: The arguments are not such as its script takes, or its method is not covered.
    """
    own = zoo = None
    if {"base_keep_rate", "drop_loc", "fuse_token"} <= args.keys():
        own = _evit(path, args)
    elif type(args.get("base_rate")) is float and _holds(top.get("model"), "score_predictor."):
        said = {"keep_rate": args["base_rate"], "keep_rule": kept.OFFICIAL}
        own = Script(DYNAMICVIT, "dynamicvit", said, {"keep_rate": "base_rate"})
    if {"reduction_loc", "keep_rate"} <= args.keys() and description.is_name(args.get("model")):
        zoo = _zoo(path, top, args)
    if own is not None and zoo is not None:
        raise InputError(
            f"{path}: its args are those of two scripts, {own.where['keep_rate']} of "
            f"{REPOSITORIES[own.name]} and reduction_loc of {REPOSITORIES[zoo.name]}, whose rules "
            "differ; leave in args those of the one that trained it"
        )
    return own or zoo


def dymu(thresholds: Mapping[int, float], *, pool_sizes: bool) -> Script:
    """DyMU, whose thresholds are buffers among the weights.

    Args:
        thresholds: By block.
        pool_sizes: Whether its attention pooling knows of sizes: timm's does, the one under names
            of Hugging Face does not.
    """
    return Script(DYMU, "dymu", {"thresholds": thresholds, "pool_sizes": pool_sizes})


def averaged(top: Mapping[Any, Any]) -> bool | None:
    """Whether a file of the zoo says that its averaged weights count; None where it does not."""
    value = top.get(BEST)
    return value if isinstance(value, bool) else None


def _evit(path: Path, args: Mapping[str, Any]) -> Script:
    """Official EViT: one share everywhere, the blocks as text."""
    names = {"base_keep_rate": "keep_rate", "drop_loc": "merge_at", "fuse_token": "fuse_token"}
    values = {name: plain(args[name]) for name in names}
    rate, at, fused = values.values()
    sound = {
        "base_keep_rate": type(rate) in (int, float) and 0.0 < rate <= 1.0,
        "drop_loc": _are(at, int),
        "fuse_token": type(fused) is bool,
    }
    expected = {
        "base_keep_rate": "a share",
        "drop_loc": "blocks, like (3, 6, 9)",
        "fuse_token": "True or False",
    }
    for name, fits in sound.items():
        if not fits:
            raise InputError(
                f"{path}: its arguments are not those of {REPOSITORIES[EVIT]}: {name} "
                f"{values[name]!r:.80}; expected {expected[name]}"
            )
    said = {own: values[name] for name, own in names.items()}
    said |= {"merge_at": tuple(at), "keep_rule": kept.OFFICIAL, "trained_by": EVIT}
    return Script(EVIT, "evit", said, {own: name for name, own in names.items()})


def _zoo(path: Path, top: Mapping[Any, Any], args: Mapping[str, Any]) -> Script | None:
    """A file of the zoo or of TokenReductionPT; None where args.model is no method of theirs."""
    name = str(args["model"])
    method, _, backbone = name.partition("_")
    at, rates = plain(args["reduction_loc"]), plain(args["keep_rate"])
    pt = not re.match(_SIZES, backbone)
    if not at or method not in (_OF_ZOO if pt else METHODS):
        return None
    doubt = _doubt(pt, name, top, args) if method in _PT_METHODS else ""
    wrote = PT if pt else ZOO
    if pt and method not in _PT_METHODS:
        raise InputError(
            f"{path}: args.model {name!r} is of {REPOSITORIES[PT]}, whose rules are known here for "
            f"{' and '.join(_PT_METHODS)} alone"
        )
    if not _are(at, int) or not _are(rates, (int, float)) or not rates:
        raise InputError(
            f"{path}: args.reduction_loc {at!r:.80}, args.keep_rate {rates!r:.80}; expected a list "
            "of blocks, and of shares"
        )
    if len(rates) == 1 and not 0 < rates[0] <= 1 and not _unread(method, args):
        raise InputError(
            f"{path}: args.keep_rate: keep rate {rates[0]}: expected shares above 0, at most 1"
        )
    if len(rates) > 1 and method not in _WITH_LISTS and not _unread(method, args):
        raise InputError(
            f"{path}: args.keep_rate holds {len(rates)} numbers; {method} takes them for counts, "
            f"and its script makes them floats, on which the original fails: {REPOSITORIES[ZOO]} "
            "wrote no such file"
        )
    said: dict[str, Any] = {
        "merge_at": tuple(at),
        "keep_rate": rates[0] if len(rates) == 1 else tuple(rates),
        "keep_rule": kept.OFFICIAL if pt else kept.ZOO,
        "trained_by": wrote,
    }
    where = {"merge_at": "reduction_loc", "keep_rate": "keep_rate"}
    for key in _MORE.get(method, ()):
        if args.get(key) is not None:
            said[key], where[key] = plain(args[key]), key
    return Script(wrote, METHODS[method], said, where, doubt)


_MORE: Mapping[str, tuple[str, ...]] = {
    "sinkhorn": ("sinkhorn_eps", "cluster_iters"),
    "heuristic": ("heuristic_pattern", "min_radius", "not_contiguous"),
    "dpcknn": ("k_neighbors", "equal_weight"),
    "kmedoids": ("cluster_iters", "equal_weight"),
}


def _unread(method: str, args: Mapping[str, Any]) -> bool:
    """Whether a method reads no keep rate."""
    return method == "heuristic" and not args.get("not_contiguous")


def _doubt(pt: bool, name: str, top: Mapping[Any, Any], args: Mapping[str, Any]) -> str:
    """What of a file speaks against the script that its model's name is of, or nothing."""
    has_averaged = "model_ema" in top
    marks = sorted(_PT_ARGUMENTS & args.keys())
    if pt and has_averaged:
        return f"{name} is a name of {REPOSITORIES[PT]}, whose files hold no model_ema"
    if not pt and "ifa_head" in marks:
        return f"{name} is a name of {REPOSITORIES[ZOO]}, whose args hold no {', '.join(marks)}"
    if not pt and not has_averaged and args.get("model_ema") is not False:
        return f"{name} is a name of {REPOSITORIES[ZOO]}, whose files hold model_ema"
    return ""


def _holds(state: object, prefix: str) -> bool:
    return isinstance(state, Mapping) and any(str(key).startswith(prefix) for key in state)


def _are(value: object, kinds: type | tuple[type, ...]) -> bool:
    allowed = kinds if isinstance(kinds, tuple) else (kinds,)
    return isinstance(value, (list, tuple)) and all(type(one) in allowed for one in value)


def plain(value: Any) -> Any:
    """What an argument stands for: scripts keep lists as the text they were given as."""
    if not isinstance(value, str) or len(value) > _LONGEST_ARGUMENT:
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
