"""Keeping the crucial patches and merging the others into them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.plan.step import Step

UNIFORM, SIZE, IMPORTANCE, SIMILARITY = "uniform", "size", "importance", "similarity"
WEIGHTINGS = (UNIFORM, SIZE, IMPORTANCE, SIMILARITY)


@dataclass(frozen=True)
class Mergence(Step):
    """Keep the `keep` patches that the class token attends to most, merge each other into one.

    A patch goes to the kept one of the highest cosine of their vectors; of equal ones the lower row
    is kept, and taken. Those kept stay in their order, each the weighted mean of itself and of what
    came to it. Attention knows of no sizes (Multi-Scale and Token Mergence, arXiv 2306.04897,
    assumed in METHOD §1).

    Attributes:
        keep: How many patches stay.
        weights: Of the mean: "uniform": all the same; "size": the patches that each owns;
            "importance": the attention that it got; "similarity": the cosine, or 0 where it is
            below, of the kept one itself 1.
    """

    on_disk: ClassVar[str] = "Mergence"
    action: ClassVar[str] = "merge"
    demands: ClassVar[frozenset[str]] = frozenset((CLASS_ATTENTION,))
    keep: int
    weights: str = UNIFORM

    @property
    def number(self) -> int:
        """How many stay."""
        return self.keep

    @property
    def brief(self) -> str:
        """It in a few words."""
        return f"merge into {self.shown()[1]}"

    @property
    def joins(self) -> bool:
        """Those that stay may have."""
        return True

    def after(self, tokens: int, protected: int) -> int:
        """The protected and the kept ones."""
        return protected + self.keep

    def possible(self, tokens: int, protected: int) -> bool:
        """Of tokens of which some do not stay, behind a class token."""
        fits = protected > 0 and 0 < self.keep < tokens - protected
        return fits and self.weights in WEIGHTINGS

    def macs(self, tokens: int, protected: int, width: int) -> int:
        """The cosines, and the sums of what merges."""
        return 2 * (tokens - protected - self.keep) * self.keep * width

    def shown(self) -> tuple[str, str]:
        """How many stay, and the mean."""
        weights = "" if self.weights == UNIFORM else f", weighted by {self.weights}"
        return "patches kept", f"{self.keep}{weights}"
