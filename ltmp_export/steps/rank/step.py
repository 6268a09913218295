"""Sorting patches by what the class token attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.plan.step import Step


@dataclass(frozen=True)
class Rank(Step):
    """Sort the patch tokens by the class token's attention, the highest first; the first stay.

    Of equal ones the lower row goes first; protected tokens stand in front, and all keep their
    sizes (DiffRate, METHOD §1). Of the other steps that keep by this attention `fuse` makes all
    sizes 1, since its methods have none, and is not taken where all stay.

    Attributes:
        keep: How many patch tokens stay.
    """

    on_disk: ClassVar[str] = "Rank"
    action: ClassVar[str] = "prune"
    demands: ClassVar[frozenset[str]] = frozenset((CLASS_ATTENTION,))
    keep: int

    @property
    def drops(self) -> bool:
        """What does not stay is gone."""
        return True

    @property
    def number(self) -> int:
        """How many stay."""
        return self.keep

    @property
    def brief(self) -> str:
        """It in a few words."""
        return f"keep {self.keep}"

    def after(self, tokens: int, protected: int) -> int:
        """The protected and the kept ones."""
        return protected + self.keep

    def possible(self, tokens: int, protected: int) -> bool:
        """Of as many tokens behind a class token."""
        return protected > 0 and 0 < self.keep <= tokens - protected

    def shown(self) -> tuple[str, str]:
        """Header and cell of a table."""
        return "patches kept", str(self.keep)
