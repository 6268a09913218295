"""Steps that a family's own weights or statements tell of, and where they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ltmp_export.plan.step import Step


@dataclass(frozen=True)
class Placed:
    """What a family makes of what is known.

    Attributes:
        blocks: What happens in a block behind its attention, by its index.
        before: What happens before a block, by its index; at the depth, before the head.
        stated: What they go by, by the names of `Choices`: what a file of the family would say.
        found: What it comes to, for a person.
        assumed: What nothing tells, by the names of `Choices`.
        warnings: What looks wrong, but can be used.
        pool_sizes: As of `Plan`.
        parameters: Weights of the reduction itself, nested by their axes, where no file has them.
    """

    blocks: Mapping[int, tuple[Step, ...]] = field(default_factory=dict)
    before: Mapping[int, Step] = field(default_factory=dict)
    stated: Mapping[str, Any] = field(default_factory=dict)
    found: tuple[str, ...] = ()
    assumed: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    pool_sizes: bool = True
    parameters: Mapping[str, Sequence[Any]] = field(default_factory=dict)
