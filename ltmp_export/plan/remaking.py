"""Steps before a block that make all patch tokens anew, as many as they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.step import Step

MOST_TOKENS = 2**20  # that one may make: far more than it does


@dataclass(frozen=True)
class Remaking(Step):
    """All patch tokens become others; tokens before the patches pass by.

    Attributes:
        name: Prefix of its weights.
        tokens: How many it makes.
    """

    name: str
    tokens: int

    def after(self, tokens: int, protected: int) -> int:
        """Those that pass by, and those made."""
        return protected + self.tokens

    def possible(self, tokens: int, protected: int) -> bool:
        """Of any tokens."""
        return 0 < self.tokens <= MOST_TOKENS


@dataclass(frozen=True)
class Mixing(Remaking):
    """They become mixtures of all of themselves."""

    action: ClassVar[str] = "mix"

    @property
    def mixes(self) -> bool:
        """Each is of all patches."""
        return True

    def shown(self) -> tuple[str, str]:
        """Header and cell of a table."""
        return "patch tokens made anew before it", str(self.tokens)
