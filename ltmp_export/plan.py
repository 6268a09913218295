"""The frozen token reduction of one model: which steps each block takes, with plain floats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

DENSE = "dense"  # the family of a model that reduces nothing


@dataclass(frozen=True)
class Merge:
    """Merge each source token whose best similarity is above `threshold` (SPEC §1, steps 3-4)."""

    threshold: float


@dataclass(frozen=True)
class Prune:
    """Keep the tokens whose importance is above `threshold` (SPEC §1, step 5)."""

    threshold: float


Step: TypeAlias = Merge | Prune


@dataclass(frozen=True)
class Plan:
    """What is left of a family once its thresholds are frozen.

    Attributes:
        family: Name of the file in `families/` that made the plan, or "dense".
        blocks: For each transformer block, its steps in the order they are taken.
    """

    family: str
    blocks: tuple[tuple[Step, ...], ...]

    def thresholds(self) -> dict[str, list[float]]:
        """Thresholds per kind in block order, for example `{"merge": [...], "prune": [...]}`."""
        found: dict[str, list[float]] = {}
        for steps in self.blocks:
            for step in steps:
                found.setdefault(type(step).__name__.lower(), []).append(step.threshold)
        return found


def dense_plan(depth: int) -> Plan:
    """A plan that reduces nothing: the plain ViT the reduced one is compared with."""
    return Plan(DENSE, ((),) * depth)
