"""The reduction of a checkpoint as a `Plan`: thresholds, counts from r, or weights of its own."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ltmp_export import families
from ltmp_export.backbones.vit import kinds
from ltmp_export.backbones.vit.features import Shaped
from ltmp_export.checkpoint import arguments, rates
from ltmp_export.checkpoint.frozen import Frozen
from ltmp_export.checkpoint.identify import require_backbone
from ltmp_export.checkpoint.outline import KINDS
from ltmp_export.checkpoint.placed import placed
from ltmp_export.checkpoint.scripts import Script
from ltmp_export.errors import InputError
from ltmp_export.families import Family
from ltmp_export.files.near_misses import did_you_mean
from ltmp_export.plan import kept
from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.plan import DENSE, Plan, dense_plan
from ltmp_export.plan.vit import Vit, require_vit
from ltmp_export.plan.work import share
from ltmp_export.statements.choices import Choices
from ltmp_export.statements.gather import Said, Statements

if TYPE_CHECKING:
    from ltmp_export.checkpoint.contents import Contents

T = TypeVar("T")

DEFAULT_FAMILY = "ltmp"  # to make thresholds of
_HALF_PRECISION = 2e-3  # 0.9 is 0.8984 in bfloat16


def without_own(weights: Mapping[str, T], family: str) -> dict[str, T]:
    """The weights of the ViT alone."""
    if family == DENSE:
        return dict(weights)
    patterns = families.load(family).weights, families.load(family).unread
    own = [pattern for pattern in patterns if pattern is not None]
    return {key: v for key, v in weights.items() if not any(one.fullmatch(key) for one in own)}


def used(weights: Mapping[str, T], family: str) -> dict[str, T]:
    """Of a family that does not use them without the last block, and what stands behind it."""
    if family == DENSE or not families.load(family).cut:
        return dict(weights)
    numbers = [int(key.split(".")[1]) for key in weights if re.match(r"blocks\.\d{1,6}\.", key)]
    last = f"blocks.{max(numbers, default=0)}."
    behind = ("norm.", "fc_norm.", "head.", "head_dist.")
    return {key: value for key, value in weights.items() if not key.startswith((last, *behind))}


def with_heads(
    path: Path, says: Statements, family: str, weights: Mapping[str, Shaped]
) -> Statements:
    """What is said, and the number of heads where the family fixes their width.

    Raises:
        InputError: The weights are not those of such heads, or another number is stated.
    """
    each = None if family == DENSE else families.load(family).head_width
    layer = f"blocks.0.{kinds.layers(weights)[0]}.weight"
    if each is None or layer not in weights:
        return says
    width = kinds.attention_width(weights)
    told = f"family {family} has heads of {each} channels"
    if width % each:
        raise InputError(f"{path}: {told}, which do not divide the attention width {width}")
    if says.heads is not None and says.heads.value != width // each:
        raise InputError(
            f"{path}: {told}, {width // each} of them; {says.heads.where} says {says.heads.value}"
        )
    return replace(says, heads=Said(width // each, told))


def freeze(path: Path, contents: Contents, family: str, choices: Choices, vit: Geometry) -> Frozen:
    """The plan of a checkpoint.

    Args:
        path: The file, for messages.
        contents: What it holds.
        family: One of `families.names()`, or "dense".
        choices: What the user states.
        vit: Geometry.

    Raises:
        InputError: Something is missing, has to be stated, or does not fit the model.
    """
    frozen = _frozen(path, contents, family, choices, vit)
    return placed(path, frozen, contents.args, choices, vit)


def _frozen(path: Path, contents: Contents, family: str, choices: Choices, vit: Geometry) -> Frozen:
    """The plan without what becomes of places."""
    if family == DENSE:
        return Frozen(dense_plan(vit.depth))
    method = families.load(family)
    require_backbone(path, family, vit.kind)
    if isinstance(vit, Vit):
        require_tokens(method, vit.class_token, path)
    if method.weights is not None and families.owner(contents.weights) == method:
        return _from_weights(path, contents, method, choices, vit)
    if method.from_stated is not None:
        return arguments.from_stated(path, contents, method, choices, vit)
    if method.counts:
        return _counted(path, contents, method, choices, vit)
    plan = method.freeze(_complete(path, contents.thresholds, method, vit.depth))
    return Frozen(plan, warnings=tuple(_untrained(plan)))


def require_stated(path: Path, family: Family, choices: Choices, script: Script | None) -> None:
    """Check that it is said how many tokens a family with fixed numbers takes.

    Raises:
        InputError: It is not, or in two ways.
    """
    if not family.counts:
        return
    if choices.rate is not None and choices.reduction_target is not None:
        raise InputError("--r and --reduction-target say the same in two ways; give one")
    if not choices.rated and (script is None or script.family != family.name):
        raise InputError(
            f"{path}: family {family.name} takes a fixed number of tokens from each block, which "
            "no file holds; state it with --r 8, or --reduction-target 0.6 to have it picked"
        )


def require_learned(path: Path, stated: str | None, own: str, class_token: bool) -> Family:
    """The family to make thresholds of: the one stated, else the checkpoint's own, else ltmp.

    Args:
        path: The checkpoint, for messages.
        stated: What the user states.
        own: The checkpoint's own family, or "dense".
        class_token: Whether the model has one.

    Raises:
        InputError: There is no such family, it has no thresholds, or does not take the model.
    """
    name = stated or (DEFAULT_FAMILY if own == DENSE else own)
    if name in families.training_free():
        rate = "r" if name in families.counted() else "rate"
        raise InputError(
            f"family {name} has no thresholds to make; it needs none: ltmp export --family {name} "
            f"--reduction-target 0.6 picks its {rate}, without images"
        )
    if name not in families.learned():
        if stated is None:
            raise InputError(
                f"{path} is of family {name}, which has no thresholds to make; give dense weights"
            )
        raise InputError(
            f"no family {name!r} with thresholds; choose from {', '.join(families.learned())}"
            f"{did_you_mean(name, families.learned())}"
        )
    family = families.load(name)
    require_tokens(family, class_token, path)
    return family


def require_trained(path: Path, stated: str | None, own: str, class_token: bool) -> Family:
    """The family to train: one with thresholds to make, see `require_learned`, or a stated one.

    Raises:
        InputError: There is none, or it does not take the model.
    """
    name, able = stated or own, (*families.learned(), *families.trainable())
    if name in families.names() and name not in (*able, *families.counted()):
        raise InputError(
            f"{path}: family {name} cannot be trained; of dense weights {', '.join(able)} can"
        )
    if name not in families.trainable():
        return require_learned(path, stated, own, class_token)
    family = families.load(name)
    require_tokens(family, class_token, path)
    return family


def require_classifier(path: Path, there: bool) -> None:
    """Check that a model to be trained has classes to learn.

    Raises:
        InputError: It has none.
    """
    if not there:
        raise InputError(
            f"{path} has no classifier, and labels are what is learned from; give weights with one "
            "(head.weight, head.bias)"
        )


def require_tokens(family: Family, class_token: bool, path: Path) -> None:
    """Check that a model has the class token that its family goes by.

    Raises:
        InputError: It has none.
    """
    if family.class_token and not class_token:
        able = [name for name in families.names() if not families.load(name).class_token]
        raise InputError(
            f"{path} has no class token, which family {family.name} needs; "
            f"{', '.join(able)} need none"
        )


def _counted(
    path: Path, contents: Contents, family: Family, choices: Choices, geometry: Geometry
) -> Frozen:
    """The plan of r as it is stated, as the target picks it, or as the file's script has it."""
    require_stated(path, family, choices, contents.script)
    vit = require_vit(geometry, path, f"family {family.name}")
    if choices.rate is not None:
        stated = rates.parse(choices.rate, vit.depth)
    elif contents.script is not None and not choices.rated:
        said = contents.script.of(vit.patches)
        places = kept.require_places(str(path), vit.depth, said["merge_at"], "merge")
        lost = kept.lost(said["counts"], places, vit.patches)
        stated = tuple(lost.get(block, 0) for block in range(vit.depth))
    else:
        stated = rates.reaching(family, float(choices.reduction_target or 0), vit)
    plan = rates.plan(family, stated, vit)
    tokens = " ".join(map(str, plan.counts(vit.tokens, vit.prefix)))
    r = ",".join(map(str, stated if len(set(stated)) > 1 else stated[:1]))
    left = f"{share(vit, plan):.1%} of the dense multiply-accumulates"
    note = f"r {r}: {left}, tokens after each block {tokens}"
    if not any(plan.blocks):
        doubt = f"family {family.name} with this r reduces nothing"
        return Frozen(plan, (note,), warnings=(doubt,))
    return Frozen(plan, (note,))


def _from_weights(
    path: Path, contents: Contents, family: Family, choices: Choices, vit: Geometry
) -> Frozen:
    """The plan that weights of the family's own tell of."""
    if family.weights is None or family.from_weights is None:
        raise ValueError(f"family {family.name} has no weights of its own")
    weights = contents.weights
    own = {key: value for key, value in weights.items() if family.weights.fullmatch(key)}
    plain = without_own(weights, family.name)  # the ViT's own
    shapes = {key: tuple(value.shape) for key, value in weights.items() if key not in plain}
    place = partial(family.from_weights, str(path), shapes, vit)
    frozen = arguments.placed(path, contents, family, choices, vit, place)
    return frozen._replace(plan=replace(frozen.plan, parameters=own))


def _complete(
    path: Path, thresholds: Mapping[str, Mapping[int, float]], family: Family, depth: int
) -> dict[str, Sequence[float]]:
    complete: dict[str, Sequence[float]] = {}
    for kind in family.scalars:
        found = thresholds[kind]
        missing = sorted(set(range(depth)) - found.keys())
        extra = sorted(found.keys() - set(range(depth)))
        if missing or extra:
            what = (
                f"missing in blocks {missing}" if missing else f"of blocks {extra} without weights"
            )
            raise InputError(f"{path}: {kind} thresholds {what}; the model has {depth} blocks")
        complete[kind] = [found[block] for block in range(depth)]
    return complete


def _untrained(plan: Plan) -> list[str]:
    """A warning for each kind of threshold that is still where training starts, in any family."""
    known = [families.load(name).start for name in families.learned()]
    starts = {kind: [start[kind] for start in known if kind in start] for kind in KINDS}
    return [
        f"all {kind} thresholds are at their initial value {numbers[0]:g}: never fine-tuned"
        for kind, numbers in plan.thresholds().items()
        if len(set(numbers)) == 1
        and any(math.isclose(numbers[0], start, abs_tol=_HALF_PRECISION) for start in starts[kind])
    ]
