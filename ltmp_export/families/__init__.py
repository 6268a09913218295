"""Token-reduction methods, one file each; the file's name is the family's name.

A family file says in one of four ways what it needs beside the weights of a ViT:

* `START`: the learned scalars each block must have, by kind (`merge`, `prune`), with the value
  training starts from.
* `COUNTS`: the kinds of which each block takes a fixed number of tokens, which no file holds.
* `WEIGHTS`: the names of tensors of its own, as a regular expression; `STATED`: the `Choices` that
  say of them what names and shapes do not; `UNREAD`: names of tensors beside them that no forward
  pass reads.
* `from_stated` and `STATED` alone: the `Choices` that a user or the file's arguments state.

With the first two, `block_steps(**scalars)` gives the steps one block takes, in order, from one
scalar per kind (`unprotected_steps` those of a model without protected rows, if they are others);
with the third, `from_weights(source, shapes, vit, **stated)` what happens before which block; with
the last, `from_stated(source, vit, **stated)` both. What a training script's arguments say of the
names in `STATED`, `checkpoint.scripts` knows; those that are no `Choices` stand there alone.
`CLASS_TOKEN = True` says that it goes by a class token, `TRAINABLE = True` that weights can be
trained under its plan, `VARIES = True` that it keeps as many tokens of an image as this needs (so
do all with `START`), `CUT = True` that the last block, norm and head of a file are not used,
`HEAD_WIDTH` how many channels each head of its ViTs has, `BACKBONES` which networks it takes, by
the names of their folders, where these are not all kinds of ViTs.

Nothing else registers a family: a new file here is found by name.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ltmp_export.plan import faces
from ltmp_export.plan.placed import Placed
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.step import Step
from ltmp_export.plan.vit import Vit

ALIASES = {"tome": "m", "dyvit": "dynamicvit"}  # other names of families
VITS = (Vit.kind, "beit", "eva")  # kinds of ViTs; steps carry along where their tokens lie


@dataclass(frozen=True)
class Family:
    """One family file, loaded.

    Attributes:
        name: The file's name, for example "ltmp".
        start: Where each kind of learned threshold starts, in the order of `outline.KINDS`.
        counts: Kinds of which a block takes a fixed number.
        weights: Names of tensors of its own, or None.
        unread: Names of tensors beside them that mean nothing, or None.
        stated: What a user may have to state about them, by the names of `Choices`.
        trainable: Whether weights can be trained under its plan.
        class_token: Whether it needs a class token.
        head_width: Channels of each head of its ViTs, where it fixes them.
        varies: Whether it keeps as many tokens of an image as this needs.
        cut: Whether its ViT ends before the last block of a file, without norm and head.
        backbones: The networks that it takes.
        block_steps: From one scalar per kind to the block's steps.
        unprotected_steps: The same of a model without protected rows.
        from_weights: From the shapes of tensors of its own to where they stand, or None.
        from_stated: From statements to the steps and where they stand, or None.
    """

    name: str
    start: Mapping[str, float]
    counts: tuple[str, ...]
    weights: re.Pattern[str] | None
    unread: re.Pattern[str] | None
    stated: tuple[str, ...]
    trainable: bool
    class_token: bool
    head_width: int | None
    varies: bool
    cut: bool
    backbones: tuple[str, ...]
    block_steps: Callable[..., tuple[Step, ...]]
    unprotected_steps: Callable[..., tuple[Step, ...]]
    from_weights: Callable[..., Placed] | None
    from_stated: Callable[..., Placed] | None

    @property
    def scalars(self) -> tuple[str, ...]:
        """Kinds of learned threshold a block of this family has."""
        return tuple(self.start)

    def steps(self) -> tuple[Step, ...]:
        """The steps a block takes, in order, with numbers that mean nothing."""
        return self.block_steps(**dict.fromkeys(self.scalars or self.counts, 1))

    def order(self) -> tuple[str, ...]:
        """What the steps of a block do, in the order it takes them."""
        return tuple(step.action for step in self.steps())

    def gates(self) -> dict[str, Callable[..., Any]]:
        """The masked forms of the steps of a block by what they do, in order.

        Raises:
            InputError: A step has none: it cannot be trained.
        """
        return {step.action: faces.face(type(step), "masked").gate for step in self.steps()}

    def freeze(self, scalars: Mapping[str, Sequence[float]], protected: int = 1) -> Plan:
        """The plan of a model with these thresholds or counts, one per block for every kind.

        Args:
            scalars: By kind.
            protected: Rows of the model that never go.
        """
        kinds = self.scalars or self.counts
        per_block = zip(*(scalars[kind] for kind in kinds), strict=True)
        steps = self.block_steps if protected else self.unprotected_steps
        blocks = (steps(**dict(zip(kinds, v, strict=True))) for v in per_block)
        return Plan(self.name, tuple(blocks))


@functools.cache
def names() -> tuple[str, ...]:
    """Names of all families, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def learned() -> tuple[str, ...]:
    """Names of the families with learned thresholds, sorted."""
    return tuple(name for name in names() if load(name).start)


def counted() -> tuple[str, ...]:
    """Names of the families that take a fixed number of tokens from each block, sorted."""
    return tuple(name for name in names() if load(name).counts)


def owner(keys: Iterable[str]) -> Family | None:
    """The family that has tensors of such names of its own."""
    listed = list(keys)
    for family in map(load, names()):
        if family.weights and any(family.weights.fullmatch(key) for key in listed):
            return family
    return None


def trainable() -> tuple[str, ...]:
    """Names of those of the `stated` whose weights can be trained under their plan, sorted."""
    return tuple(name for name in stated() if load(name).trainable)


def stated() -> tuple[str, ...]:
    """Names of the families that statements alone tell of, sorted."""
    return tuple(name for name in names() if load(name).from_stated)


def training_free() -> tuple[str, ...]:
    """Names of the families that make something of any plain ViT at a share of its work, sorted."""
    return tuple(name for name in names() if _needs_no_training(load(name)))


def _needs_no_training(family: Family) -> bool:
    """Whether a target alone is enough, and it has no tensors of its own to be learned."""
    picked = family.from_stated is not None and "reduction_target" in family.stated
    return bool(family.counts) or (picked and family.weights is None)


def split_arch(arch: str | None) -> tuple[str | None, str | None]:
    """Split "ltmp_deit_small_patch16_224" into family prefix and timm name."""
    if arch is None:
        return None, None
    arch = arch.removeprefix("inference_")
    for name in sorted(names(), key=len, reverse=True):  # ltm_transformer before ltm
        if arch.startswith(f"{name}_") and len(arch) > len(name) + 1:
            return name, arch[len(name) + 1 :]
    return None, arch


@functools.cache
def load(name: str) -> Family:
    """The family of that name.

    Raises:
        ValueError: No file of that name.
    """
    if name not in names():
        raise ValueError(f"no family {name!r}; there are {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    weights, unread = (getattr(module, word, None) for word in ("WEIGHTS", "UNREAD"))
    block_steps = getattr(module, "block_steps", lambda: ())
    return Family(
        name=name,
        start=getattr(module, "START", {}),
        counts=getattr(module, "COUNTS", ()),
        weights=None if weights is None else re.compile(weights),
        unread=None if unread is None else re.compile(unread),
        stated=getattr(module, "STATED", ()),
        trainable=getattr(module, "TRAINABLE", False),
        class_token=getattr(module, "CLASS_TOKEN", False),
        head_width=getattr(module, "HEAD_WIDTH", None),
        cut=getattr(module, "CUT", False),
        varies=getattr(module, "VARIES", hasattr(module, "START")),
        backbones=getattr(module, "BACKBONES", VITS),
        block_steps=block_steps,
        unprotected_steps=getattr(module, "unprotected_steps", block_steps),
        from_weights=getattr(module, "from_weights", None),
        from_stated=getattr(module, "from_stated", None),
    )
