"""Mixing all patch tokens into a few, before a block or the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.remaking import Mixing


@dataclass(frozen=True)
class PatchMerge(Mixing):
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
    scale: float
    eps: float

    def macs(self, tokens: int, protected: int, width: int) -> int:
        """The scores of the patch tokens, and what they mix."""
        return 2 * self.tokens * (tokens - protected) * width
