"""Keeping the tokens that a small network of its own prefers, before a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.step import Step


@dataclass(frozen=True)
class Predict(Step):
    """Keep the `keep` patch tokens of the highest predicted score (DynamicViT, METHOD §1).

    With h = GELU(Linear(LN(X))) of the patch tokens, u the first half of its channels and g the
    mean over the tokens of the second, + `floor`: the score is the first of the two
    log-probabilities that three more linear layers make of [u, g]. Those kept stand in the order of
    their scores behind the protected tokens, of equal ones the lower row first. It serves one
    method: nobody else's scores are the predictions of layers of their own.

    Attributes:
        name: Prefix of its weights: `in_conv.0` (LayerNorm), and the linear layers `in_conv.1`,
            `out_conv.0`, `out_conv.2`, `out_conv.4`.
        keep: How many stay.
        floor: Added to the pooled half.
        eps: Epsilon of its LayerNorm.
    """

    on_disk: ClassVar[str] = "Predict"
    action: ClassVar[str] = "keep"
    name: str
    keep: int
    floor: float = 0.0
    eps: float = 1e-5

    @property
    def decides(self) -> bool:
        """By its own scores."""
        return True

    @property
    def drops(self) -> bool:
        """What does not stay is gone."""
        return True

    @property
    def number(self) -> int:
        """How many stay."""
        return self.keep

    def after(self, tokens: int, protected: int) -> int:
        """The protected and the kept ones."""
        return protected + self.keep

    def possible(self, tokens: int, protected: int) -> bool:
        """Of tokens of which some do not stay; of an unknown number if any stays."""
        return self.keep > 0 and (not tokens or self.keep < tokens - protected)

    def macs(self, tokens: int, protected: int, width: int) -> int:
        """Its four linear layers."""
        half, quarter = width // 2, width // 4
        layers = width * width + width * half + half * quarter + 2 * quarter
        return (tokens - protected) * layers

    def shown(self) -> tuple[str, str]:
        """Header and cell of a table."""
        return "patches kept before it", str(self.keep)
