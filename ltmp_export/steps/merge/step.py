"""Merging by a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.scores import METRIC
from ltmp_export.plan.step import Step


@dataclass(frozen=True)
class Merge(Step):
    """Merge each source whose best similarity is above `threshold` (METHOD §1, steps 3-4)."""

    on_disk: ClassVar[str] = "Merge"
    action: ClassVar[str] = "merge"
    demands: ClassVar[frozenset[str]] = frozenset((METRIC,))
    resizes: ClassVar[bool] = True
    threshold: float

    @property
    def learned(self) -> float:
        """The threshold."""
        return self.threshold

    def after(self, tokens: int, protected: int) -> int | None:
        """Each image has a say."""
        return None

    def possible(self, tokens: int, protected: int) -> bool:
        """Of any tokens."""
        return 0.0 <= self.threshold <= 1.0

    def shown(self) -> tuple[str, str]:
        """Header and cell of a table."""
        return "merge threshold", f"{self.threshold:.6f}"
