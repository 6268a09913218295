"""A budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.plan.step import Step


@dataclass(frozen=True)
class Fit(Step):
    """Keep the `keep` most important tokens, in their order, where there are more."""

    on_disk: ClassVar[str] = "Fit"
    action: ClassVar[str] = "fit"
    demands: ClassVar[frozenset[str]] = frozenset((IMPORTANCE,))
    keep: int

    @property
    def drops(self) -> bool:
        """What does not stay is gone."""
        return True

    @property
    def varies(self) -> bool:
        """Of an image that has fewer nothing goes."""
        return True

    @property
    def number(self) -> int:
        """How many may stay."""
        return self.keep

    @property
    def budget(self) -> int:
        """How many may stay."""
        return self.keep

    def after(self, tokens: int, protected: int) -> int | None:
        """Each image has a say."""
        return None

    def possible(self, tokens: int, protected: int) -> bool:
        """Of no fewer tokens, with room for the protected ones."""
        return max(0, protected - 1) < self.keep <= tokens

    def shown(self) -> tuple[str, str]:
        """Header and cell of a table."""
        return "keeps at most", str(self.keep)
