"""Pruning by a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.plan.step import Step


@dataclass(frozen=True)
class Prune(Step):
    """Keep the tokens whose importance is above `threshold` (METHOD §1, step 5)."""

    on_disk: ClassVar[str] = "Prune"
    action: ClassVar[str] = "prune"
    demands: ClassVar[frozenset[str]] = frozenset((IMPORTANCE,))
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
        return "prune threshold", f"{self.threshold:.6f}"
