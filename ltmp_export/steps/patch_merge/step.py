"""Mixing all patch tokens into a few, before a block or the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.step import Step

MOST_TOKENS = 2**20  # that PatchMerger may make: far more than it does


@dataclass(frozen=True)
class PatchMerge(Step):
    """All patch tokens become `tokens` mixtures of them (PatchMerger, arXiv 2202.12015).

    Y = softmax over the N patch tokens of (scale · W · LN(X)ᵀ), times LN(X); tokens before the
    patches pass by.

    Attributes:
        name: Prefix of its weights: `queries` W [tokens, C], `norm.weight`, `norm.bias`.
        tokens: How many.
        scale: Of the scores.
        eps: Epsilon of its LayerNorm.
    """

    on_disk: ClassVar[str] = "PatchMerge"
    action: ClassVar[str] = "mix"
    name: str
    tokens: int
    scale: float
    eps: float

    @property
    def mixes(self) -> bool:
        """Each is of all patches."""
        return True

    def after(self, tokens: int, protected: int) -> int:
        """Those that pass by, and the mixtures."""
        return protected + self.tokens

    def possible(self, tokens: int, protected: int) -> bool:
        """Of any tokens."""
        return 0 < self.tokens <= MOST_TOKENS

    def macs(self, tokens: int, protected: int, width: int) -> int:
        """The scores of the patch tokens, and what they mix."""
        return 2 * self.tokens * (tokens - protected) * width

    def shown(self) -> tuple[str, str]:
        """Header and cell of a table."""
        return "patch tokens made anew before it", str(self.tokens)
