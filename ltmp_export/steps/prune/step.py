"""Pruning by a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.plan.step import Learned


@dataclass(frozen=True)
class Prune(Learned):
    """Keep the tokens whose importance is above `threshold` (METHOD §1, step 5)."""

    on_disk: ClassVar[str] = "Prune"
    action: ClassVar[str] = "prune"
    demands: ClassVar[frozenset[str]] = frozenset((IMPORTANCE,))

    @property
    def drops(self) -> bool:
        """What does not stay is gone."""
        return True
