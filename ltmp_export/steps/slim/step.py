"""Mixing all patch tokens by shares that layers of its own give them, before a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.remaking import Mixing


@dataclass(frozen=True)
class Slim(Mixing):
    """All patch tokens become `tokens` mixtures of themselves (SiT, METHOD §1).

    Y = Wᵀ X with W = softmax over the tokens of scale · Linear(GELU(Linear(LN(X)))): what is mixed
    is not normalised. Tokens before the patches pass by. It serves one method: PatchMerger's shares
    are products with queries, and it mixes what is normalised.

    Attributes:
        name: Prefix of its weights: `weight.0` (LayerNorm), `weight.1` and `weight.3` (linear
            layers), `scale`.
        tokens: How many.
        hidden: Width between its linear layers.
        eps: Epsilon of its LayerNorm.
    """

    on_disk: ClassVar[str] = "Slim"
    hidden: int
    eps: float = 1e-5

    def macs(self, tokens: int, protected: int, width: int) -> int:
        """Its layers, and what they mix."""
        return (tokens - protected) * (width * self.hidden + self.tokens * (self.hidden + width))
