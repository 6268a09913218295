"""Merging by a constant matrix before a block, and recovering behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.step import Step


@dataclass(frozen=True)
class MergeMatrix(Step):
    """A block runs on M·X instead of X, and R·Z + (1 - m) ⊙ X is what it gives.

    M merges, R recovers, m tells who took part; Z is what the block makes of M·X
    (Prune-and-Merge, METHOD §1). No image has a say.

    Attributes:
        name: Prefix of its weights: `merge_matrix` M [tokens, of], `recover_matrix` R
            [of, tokens], `token_mask` m [of].
        tokens: Rows that the block runs on.
        of: Rows before it and behind it, all tokens of an image.
    """

    on_disk: ClassVar[str] = "MergeMatrix"
    action: ClassVar[str] = "merge by a matrix"
    name: str
    tokens: int
    of: int

    @property
    def restores(self) -> bool:
        """All tokens are there again."""
        return True

    @property
    def mixes(self) -> bool:
        """As its matrix is."""
        return True

    def after(self, tokens: int, protected: int) -> int:
        """What the block runs on."""
        return self.tokens

    def possible(self, tokens: int, protected: int) -> bool:
        """Of the number it was made for."""
        return 0 < self.tokens <= self.of and tokens in (0, self.of)

    def macs(self, tokens: int, protected: int, width: int) -> int:
        """Both matrices times the tokens."""
        return 2 * self.tokens * self.of * width

    def shown(self) -> tuple[str, str]:
        """Header and cell of a table."""
        return "merged by a matrix for it", f"{self.of} to {self.tokens}"
