"""Steps that weights of a checkpoint's own tell of, and where they stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ltmp_export.plan.step import Step


@dataclass(frozen=True)
class Placed:
    """What a family makes of weights of its own.

    Attributes:
        before: What happens before a block, by its index; at the depth, before the head.
        found: What it comes to, for a person.
        assumed: What nothing tells, by the names of `Choices`.
        warnings: What looks wrong, but can be used.
    """

    before: Mapping[int, Step]
    found: tuple[str, ...] = ()
    assumed: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
