"""Keeping the patch tokens in the middle of clusters, before a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.plan.step import Step

MOST_ROUNDS = 100  # of clustering: far more than any


@dataclass(frozen=True)
class Medoids(Step):
    """Keep the medoids of `tokens` clusters of the patch tokens (K-Medoids, METHOD §1).

    With w the attention that tokens got in the block before and d their distances, a token costs
    w times the sum of its d to all tokens. Clusters begin around the tokens of the highest w; so
    many `rounds` each token goes to the nearest centre, and the cheapest token of a cluster becomes
    its centre; of equal ones the first, and row 0 where a cluster has no token. They stand in the
    order of their clusters behind the protected tokens. It serves one method: no other's clusters
    are weighted by attention, and stay tokens instead of means.

    Attributes:
        tokens: How many clusters.
        rounds: How often centres are found anew.
    """

    on_disk: ClassVar[str] = "Medoids"
    action: ClassVar[str] = "keep"
    demands: ClassVar[frozenset[str]] = frozenset((IMPORTANCE,))
    tokens: int
    rounds: int

    @property
    def decides(self) -> bool:
        """By distances and attention."""
        return True

    @property
    def drops(self) -> bool:
        """What is no medoid is gone."""
        return True

    @property
    def number(self) -> int:
        """How many stay."""
        return self.tokens

    @property
    def ordered(self) -> bool:
        """Clusters stand in the order of what they began around."""
        return True

    def after(self, tokens: int, protected: int) -> int:
        """The protected ones and the medoids."""
        return protected + self.tokens

    def possible(self, tokens: int, protected: int) -> bool:
        """Of more tokens; of an unknown number if there are any."""
        sound = 0 < self.rounds <= MOST_ROUNDS and self.tokens > 0
        return sound and (not tokens or self.tokens < tokens - protected)

    def macs(self, tokens: int, protected: int, width: int) -> int:
        """The distances."""
        return (tokens - protected) ** 2 * width

    def shown(self) -> tuple[str, str]:
        """Header and cell of a table."""
        return "medoids before it", str(self.tokens)
