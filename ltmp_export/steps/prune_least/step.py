"""Pruning a fixed number."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ltmp_export.plan import pairing
from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.plan.step import Step


@dataclass(frozen=True)
class PruneLeast(Step):
    """Sort by importance, protected tokens first, and drop the last `count` (METHOD §1).

    Attributes:
        count: How many.
        ordered: Whether a later step reads the order; if not, only who stays is a decision.
    """

    on_disk: ClassVar[str] = "PruneLeast"
    action: ClassVar[str] = "prune"
    demands: ClassVar[frozenset[str]] = frozenset((IMPORTANCE,))
    count: int
    ordered: bool = True

    @property
    def drops(self) -> bool:
        """What does not stay is gone."""
        return True

    @property
    def number(self) -> int:
        """How many go."""
        return self.count

    def limited(self, tokens: int, protected: int) -> PruneLeast:
        """No more than merging could take, of a step that is not yet tied to a model."""
        most = min(self.count, pairing.most_merged(tokens, protected))
        return replace(self, count=most)

    def after(self, tokens: int, protected: int) -> int:
        """So many fewer."""
        return tokens - self.count

    def possible(self, tokens: int, protected: int) -> bool:
        """Of as many as merging could take."""
        return self.count <= pairing.most_merged(tokens, protected)

    def shown(self) -> tuple[str, str]:
        """Header and cell of a table."""
        return "pruned", str(self.count)
