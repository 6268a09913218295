"""Merging the last of sorted patches into the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.plan.step import Step


@dataclass(frozen=True)
class Absorb(Step):
    """Of patch tokens sorted by class attention the first `keep` stay, each other merges into one.

    A token goes to the kept one of the highest cosine of their vectors, of equal ones to the first.
    That one becomes the plain mean of itself and of all that came to it, whatever their sizes; its
    size grows by the size of each times the cosine, so that sizes are no whole numbers (DiffRate,
    METHOD §1). It serves one method: no other has such sizes. Partners are `mergence`'s.

    Attributes:
        keep: How many patch tokens stay.
    """

    on_disk: ClassVar[str] = "Absorb"
    action: ClassVar[str] = "merge"
    demands: ClassVar[frozenset[str]] = frozenset((CLASS_ATTENTION,))
    resizes: ClassVar[bool] = True
    keep: int

    @property
    def fractional(self) -> bool:
        """Sizes grow by cosines."""
        return True

    @property
    def number(self) -> int:
        """How many stay."""
        return self.keep

    @property
    def brief(self) -> str:
        """It in a few words."""
        return f"merge into {self.keep}"

    def after(self, tokens: int, protected: int) -> int:
        """The protected and the kept ones."""
        return protected + self.keep

    def possible(self, tokens: int, protected: int) -> bool:
        """Of tokens of which some do not stay, behind a class token."""
        return protected > 0 and 0 < self.keep < tokens - protected

    def macs(self, tokens: int, protected: int, width: int) -> int:
        """The cosines, and the sums of what merges."""
        return 2 * (tokens - protected - self.keep) * self.keep * width

    def shown(self) -> tuple[str, str]:
        """Header and cell of a table."""
        return "merged into", str(self.keep)
