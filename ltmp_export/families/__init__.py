"""Token-reduction methods, one file each; the file's name is the family's name.

A family file holds two things:

* `START`: the learned scalars each block must have, by kind (`merge`, `prune`), with the value
  training starts from.
* `block_steps(**scalars)`: the steps one block takes, in order, from those scalars.

Nothing else registers a family: a new file here is found by name.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ltmp_export.plan import Plan, Step


@dataclass(frozen=True)
class Family:
    """One family file, loaded.

    Attributes:
        name: The file's name, for example "ltmp".
        start: Where each kind of learned threshold starts, in the order of `contents.KINDS`.
        block_steps: From one float per kind to the block's steps.
    """

    name: str
    start: Mapping[str, float]
    block_steps: Callable[..., tuple[Step, ...]]

    @property
    def scalars(self) -> tuple[str, ...]:
        """Kinds of learned threshold a block of this family has."""
        return tuple(self.start)

    def order(self) -> tuple[str, ...]:
        """Kinds of the steps a block takes, in the order it takes them."""
        steps = self.block_steps(**dict.fromkeys(self.scalars, 0.5))
        return tuple(type(step).__name__.lower() for step in steps)

    def freeze(self, thresholds: Mapping[str, Sequence[float]]) -> Plan:
        """The plan of a model with these thresholds, one per block for every kind."""
        per_block = zip(*(thresholds[kind] for kind in self.scalars), strict=True)
        blocks = (self.block_steps(**dict(zip(self.scalars, v, strict=True))) for v in per_block)
        return Plan(self.name, tuple(blocks))


def names() -> tuple[str, ...]:
    """Names of all families, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str) -> Family:
    """The family of that name.

    Raises:
        ValueError: No file of that name.
    """
    if name not in names():
        raise ValueError(f"no family {name!r}; there are {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    return Family(name, module.START, module.block_steps)
