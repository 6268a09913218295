"""Merging by a threshold, no more than a number, in an order that depends on what merged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ltmp_export.plan import pairing
from ltmp_export.plan.scores import METRIC
from ltmp_export.plan.step import Learned


@dataclass(frozen=True)
class MergeSome(Learned):
    """Merge each source whose best similarity is above `threshold`, but no more than half (DyMU).

    Where none merges, all tokens stay as they stand, sources between destinations; else they are
    [protected ; unmerged sources ; destinations]. The cap holds the least similar back. `merge`
    has neither, and its order is the same whatever merges (METHOD §1).

    Attributes:
        ranked: Whether unmerged sources stand in order of descending similarity instead of in their
            own; of models without protected tokens.
        cap: How many may merge of tokens whose number is known; 0 while it is not.
    """

    on_disk: ClassVar[str] = "MergeSome"
    action: ClassVar[str] = "merge"
    demands: ClassVar[frozenset[str]] = frozenset((METRIC,))
    resizes: ClassVar[bool] = True
    ranked: bool = False
    cap: int = 0

    @property
    def ordered(self) -> bool:
        """Which rows are sources in the next block depends on the order."""
        return self.ranked

    @staticmethod
    def capped(protected: int) -> bool:
        """Whether there may be a source more than may merge."""
        return protected % 2 == 0

    def limited(self, tokens: int, protected: int) -> MergeSome:
        """No more than half of those behind the protected."""
        return replace(self, cap=pairing.most_merged(tokens, protected))

    def possible(self, tokens: int, protected: int) -> bool:
        """Of any tokens; ranked, of those without protected ones."""
        return super().possible(tokens, protected) and not (self.ranked and protected)
