"""What timm offers of the networks that are taken, and of those near them, and whether it is taken.

Nothing is downloaded and no model has numbers. Architectures whose modules and weights are alike,
whatever their sizes, are one group: what is taken of one is taken of all. So the group is named by
its smallest.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import timm
import torch
from torch import nn

from ltmp_export.backbones import chosen
from ltmp_export.backbones.vit import architectures, features, parallel_things
from ltmp_export.backbones.vit import describe as vit_describe
from ltmp_export.errors import InputError
from ltmp_export.plan.geometry import Geometry
from ltmp_export.progress import Progress, silent
from ltmp_export.statements import timm_names

# Files of timm's with plain ViTs and what is near them; then with the other networks.
VITS = (
    "vision_transformer", "deit", "vision_transformer_hybrid", "eva", "beit", "naflexvit",
    "vision_transformer_relpos", "vision_transformer_sam",
)  # fmt: skip
BESIDE = ("vitamin",)  # ViTs, too, in a file of their own
_MODULES = (*VITS, *BESIDE, "swin_transformer", "mobilevit", "efficientvit_mit")

# What tells models apart beside their modules and weights.
_ATTRIBUTES = (
    "global_pool", "num_prefix_tokens", "num_reg_tokens", "has_class_token", "no_embed_class",
    "dynamic_img_size", "pool_include_prefix",
)  # fmt: skip
# Parts that come in many kinds which make no difference: classifiers, the layers of a stem; and
# biases of q and v that may be left out.
_WITHIN = re.compile(r"(head|patch_embed\.(backbone|stem))(\.|$).*")
_LEFT_OUT = re.compile(r".*\.attn\.[qv]_bias")


class Surveyed(NamedTuple):
    """A model as timm configures it: its geometry, or why it has none here."""

    model: nn.Module
    geometry: Geometry | None
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Architectures of timm's that are alike apart from their sizes.

    Attributes:
        name: The smallest of them.
        module: The file of timm's that has it.
        network: Its class in timm.
        kind: The backbone that it is taken as.
        names: All of them.
        tags: Those with a pretrained tag, and it.
        headless: How many of these tags have no classifier.
        missing: What is not supported; nothing where they are taken.
    """

    name: str
    module: str
    network: str
    kind: str
    names: tuple[str, ...]
    tags: tuple[str, ...]
    headless: int
    missing: tuple[str, ...]

    @property
    def taken(self) -> bool:
        """Whether they are."""
        return not self.missing


def survey(name: str) -> Surveyed:
    """Whether timm's model of that name would be taken, with everything that it has too much.

    Args:
        name: As timm has it now.

    Raises:
        InputError: timm cannot build it.
    """
    model = timm_names.create(name)
    kind = chosen.by_class(model)
    more = parallel_things.arguments(model) if kind == chosen.VIT else {}
    plain = timm_names.create(name, **more) if more else model
    missing: list[str] = []
    if kind == chosen.VIT:
        missing += _beyond(plain, dict(plain.state_dict()))
    geometry = None
    try:
        geometry = chosen.module(kind, "describe").describe(plain, name)
    except InputError as err:
        missing += [] if missing else [str(err)]
    return Surveyed(model, None if missing else geometry, tuple(missing))


def _beyond(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> list[str]:
    """All that makes a model more, or less, than a plain ViT, without repetitions."""
    other = architectures.foreign(key for key in weights if not key.startswith("patch_embed."))
    if other is not None:
        return [f"timm's class {type(model).__name__}: it looks like {other.name} ({other.key})"]
    like = architectures.kin(weights)
    if like in architectures.APART:
        return [f"timm's class {type(model).__name__}: {architectures.APART[like]}"]
    return [*vit_describe.kinds(model), *features.unsupported(weights)]


def groups(pattern: str = "*", progress: Progress = silent) -> list[Group]:
    """All groups with a name or tag that matches, those of the most tags first.

    Args:
        pattern: As file names are matched, `*` for any letters. Where a name does not match, only
            those of its tags count that do.
        progress: Called with a few words for every architecture.

    Raises:
        InputError: None matches.
    """
    tags: dict[str, list[str]] = {}
    for tagged in timm.list_pretrained():
        name = tagged.partition(".")[0]
        if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(tagged, pattern):
            tags.setdefault(name, []).append(tagged)
    offered = [(name, module) for module in _MODULES for name in timm.list_models(module=module)]
    wanted = [
        (name, module)
        for name, module in offered
        if name in tags or fnmatch.fnmatchcase(name, pattern)
    ]
    if not wanted:
        raise InputError(
            f"timm offers no model {pattern!r} of the networks that are looked at"
            f"{timm_names.did_you_mean_model(pattern)}"
        )
    alike: dict[tuple[Any, ...], list[_Member]] = {}
    for place, (name, module) in enumerate(wanted, 1):
        progress(f"{place} of {len(wanted)} architectures: {name}")
        found = survey(name)
        size = sum(value.numel() for value in found.model.parameters())
        key = (*_features(found.model), not found.missing)
        alike.setdefault(key, []).append(_Member(size, name, module, found))
    made = [_group(members, tags) for members in alike.values()]
    return sorted(made, key=lambda group: (-len(group.tags), group.name))


class _Member(NamedTuple):
    """An architecture and its parameters."""

    size: int
    name: str
    module: str
    found: Surveyed


def _group(members: list[_Member], tags: dict[str, list[str]]) -> Group:
    first = min(members)
    ours = [tag for one in members for tag in tags.get(one.name, ())]
    configured = [timm.get_pretrained_cfg(tag) for tag in ours]
    model = first.found.model
    return Group(
        name=first.name,
        module=first.module,
        network=type(model).__name__,
        kind=chosen.by_class(model),
        names=tuple(one.name for one in members),
        tags=tuple(ours),
        headless=sum(one is not None and not one.num_classes for one in configured),
        missing=first.found.missing,
    )


def _features(model: nn.Module) -> tuple[Any, ...]:
    """What models that are alike have in common, all blocks and stages taken as one."""
    modules = {_anywhere(path): type(module).__name__ for path, module in model.named_modules()}
    keys = {_anywhere(key) for key in model.state_dict() if not _LEFT_OUT.fullmatch(key)}
    told = tuple(getattr(model, name, None) for name in _ATTRIBUTES)
    return type(model).__name__, _outer(modules.items()), _outer((key, "") for key in keys), told


def _anywhere(path: str) -> str:
    return re.sub(r"\d+", "#", path)


def _outer(named: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(pair for pair in named if not _WITHIN.fullmatch(pair[0])))
