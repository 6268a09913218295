"""Keeping dominant patches, and merging the others into some of themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.scores import CLASS_ATTENTION, METRIC
from ltmp_export.plan.step import Step


@dataclass(frozen=True)
class Contextual(Step):
    """Behind the MLP of a block keep some patches, merge the others into a few (VisionZip).

    The `keep` patches that the class token attends to most stay, of equal ones the lower row, in
    their order. Of the n others, in theirs, every ⌊n / `tokens`⌋-th, so many as `tokens` from the
    first, is a target; each other one goes to the target of the highest similarity (of equal ones
    the first). A target becomes the sum of itself and of the mean of what came to it (METHOD §1).
    It serves one method: no other's steps come behind the MLP, or have targets at equal distances,
    or sums.

    Attributes:
        keep: How many patches stay.
        tokens: How many targets.
    """

    on_disk: ClassVar[str] = "Contextual"
    action: ClassVar[str] = "merge"
    demands: ClassVar[frozenset[str]] = frozenset((CLASS_ATTENTION, METRIC))
    keep: int
    tokens: int

    @property
    def late(self) -> bool:
        """Behind the MLP."""
        return True

    @property
    def joins(self) -> bool:
        """Targets may have."""
        return True

    @property
    def number(self) -> int:
        """How many patches stay as they are."""
        return self.keep

    @property
    def brief(self) -> str:
        """It in a few words."""
        return f"keep {self.keep}, merge the rest into {self.tokens}"

    def split(self, patches: int) -> tuple[list[int], list[int]]:
        """Targets and sources among the patches that do not stay, of so many patches."""
        others = patches - self.keep
        targets = list(range(0, others, others // self.tokens))[: self.tokens]
        return targets, sorted(set(range(others)) - set(targets))

    def after(self, tokens: int, protected: int) -> int:
        """The protected ones, those that stay, and the targets."""
        return protected + self.keep + self.tokens

    def possible(self, tokens: int, protected: int) -> bool:
        """Of more tokens, behind a class token."""
        sound = protected > 0 and self.keep > 0 and self.tokens > 0
        return sound and self.keep + self.tokens < tokens - protected

    def macs(self, tokens: int, protected: int, width: int) -> int:
        """The similarities, at the most as wide as the tokens, and the sums of what merges."""
        return 2 * (tokens - protected - self.keep - self.tokens) * self.tokens * width

    def shown(self) -> tuple[str, str]:
        """Header and cell of a table."""
        return "patches kept, and made of the rest", f"{self.keep}, {self.tokens}"
