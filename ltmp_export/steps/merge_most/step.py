"""Merging a fixed number."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ltmp_export.plan import pairing
from ltmp_export.plan.scores import METRIC
from ltmp_export.plan.step import Step


@dataclass(frozen=True)
class MergeMost(Step):
    """Merge the `count` sources of the highest best similarity (METHOD §1, fixed-rate families).

    Attributes:
        count: How many; at least 1 and no more than there are.
        ranked: Whether the unmerged sources stay in order of descending similarity instead of in
            their own.
        prefix: Protected tokens, which never merge and stay in front.
    """

    on_disk: ClassVar[str] = "MergeMost"
    action: ClassVar[str] = "merge"
    demands: ClassVar[frozenset[str]] = frozenset((METRIC,))
    resizes: ClassVar[bool] = True
    count: int
    ranked: bool = False
    prefix: int = 1

    @property
    def number(self) -> int:
        """How many merge."""
        return self.count

    @property
    def idle(self) -> bool:
        """Whether none merges."""
        return self.count == 0

    def limited(self, tokens: int, protected: int) -> MergeMost:
        """No more than merging could take, of a step that is not yet tied to a model."""
        most = min(self.count, pairing.most_merged(tokens, protected))
        return replace(self, count=most, prefix=protected)

    def after(self, tokens: int, protected: int) -> int:
        """So many fewer."""
        return tokens - self.count

    def possible(self, tokens: int, protected: int) -> bool:
        """Of tokens that have as many sources."""
        return self.prefix == protected and self.count <= pairing.most_merged(tokens, protected)

    def shown(self) -> tuple[str, str]:
        """Header and cell of a table."""
        return "merged", str(self.count)
