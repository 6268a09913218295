"""Keeping what the class token attends to, and fusing the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan import kept
from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.plan.step import Step


@dataclass(frozen=True)
class Fuse(Step):
    """Keep the K of n patch tokens that the class token attends to most.

    They then stand in the order of that attention, the highest first, behind the protected tokens;
    of equal ones the lower row goes first. The others become one token behind them, the sum of
    their vectors times the attention they got, which is not divided by its sum (EViT, arXiv
    2202.07800, METHOD §1).

    Attributes:
        keep_rate: Share of the patch tokens, a fused one of before among them, above 0 and up to 1:
            K = ceil(`keep_rate` · n).
        fused: Whether the others become a token; else they are gone.
        keep: K itself, if it is above 0.
    """

    on_disk: ClassVar[str] = "Fuse"
    action: ClassVar[str] = "fuse"
    demands: ClassVar[frozenset[str]] = frozenset((CLASS_ATTENTION,))
    keep_rate: float
    fused: bool = True
    keep: int = 0

    @property
    def drops(self) -> bool:
        """Unless they are fused, the others are gone."""
        return not self.fused

    @property
    def joins(self) -> bool:
        """The token of the others has."""
        return self.fused

    def kept(self, tokens: int, protected: int) -> int:
        """K, of so many tokens."""
        return self.keep or kept.by_official(self.keep_rate, tokens - protected)

    def after(self, tokens: int, protected: int) -> int:
        """The protected and the kept ones, and the one of the others."""
        return protected + self.kept(tokens, protected) + self.fused

    def possible(self, tokens: int, protected: int) -> bool:
        """Of tokens of which some do not stay, behind a class token."""
        return protected > 0 and 0 < self.kept(tokens, protected) < tokens - protected

    def shown(self) -> tuple[str, str]:
        """The share or the number, and what becomes of the others."""
        kept = self.keep or f"{self.keep_rate:g}"
        return "keeps", f"{kept}, others {'fused' if self.fused else 'gone'}"
