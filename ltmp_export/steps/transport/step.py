"""Mixing all patch tokens by shares that balance tokens and centres, before a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ltmp_export.plan.remaking import Mixing

MOST_ROUNDS = 100  # each is written into the graph


@dataclass(frozen=True)
class Transport(Mixing):
    """All patch tokens become `tokens` mixtures of themselves (Sinkhorn, METHOD §1).

    U are the tokens' vectors at length 1, V learned centres likewise, Z = V Uᵀ / `eps`. Of
    `rounds` rounds each sets a = c − logsumexp over tokens of (Z + b), then b = c − logsumexp over
    centres of (Z + a), from b = 0, with c = −log(M + N). Y = exp(Z + a + b − c) · U: shares of a
    token add up to 1, and what is mixed has length 1. Tokens before the patches pass by. It serves
    one method: no other's shares are an equilibrium.

    Attributes:
        name: Prefix of its weights: `v` [tokens, C], the centres.
        tokens: How many.
        eps: What similarities are divided by.
        rounds: Of balancing, at least 1.
    """

    on_disk: ClassVar[str] = "Transport"
    eps: float
    rounds: int

    def possible(self, tokens: int, protected: int) -> bool:
        """Of any tokens."""
        sound = self.eps > 0 and 0 < self.rounds <= MOST_ROUNDS
        return sound and super().possible(tokens, protected)

    def macs(self, tokens: int, protected: int, width: int) -> int:
        """The similarities, and what they mix."""
        return 2 * self.tokens * (tokens - protected) * width
