"""Units of attention in a network of convolutions, in PyTorch, one image under a plan.

Shapes: S sets, N tokens of a set, C channels; a map is [1, C, height, width].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ltmp_export.backbones.hybrid.cells import shaped
from ltmp_export.backbones.trace import Trace
from ltmp_export.plan.geometry import Size
from ltmp_export.plan.plan import Plan
from ltmp_export.steps.tokens import Choice, Decision, Tokens, along, take


@dataclass
class Journey:
    """One image on its way: which block it is in, and what a `Trace` tells of those behind it.

    Attributes:
        plan: The steps of each block.
        forced: For each block and step, what to take instead of the own decision.
    """

    plan: Plan
    forced: Sequence[Sequence[Choice]] = ()
    embedded: list[Tensor] = field(default_factory=list)
    tokens: list[Tensor] = field(default_factory=list)
    sizes: list[Tensor] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    decisions: list[tuple[Decision, ...]] = field(default_factory=list)

    def enter(self, x: Tensor) -> Tokens:
        """Tokens [S · N, C] that enter a unit."""
        if not self.embedded:
            self.embedded.append(x)
        return Tokens(x, x.new_ones(len(x)), {}, protected=0)

    def reduce(self, tokens: Tokens) -> Tokens:
        """Take the steps of the block that the image is in."""
        block = len(self.tokens)
        steps = self.plan.blocks[block]
        chosen: list[Choice | None] = [None] * len(steps)
        if block < len(self.forced):
            chosen = list(self.forced[block])
        decisions = []
        for step, choice in zip(steps, chosen, strict=True):
            tokens, decision = take(step, tokens, choice, self.plan.parameters)
            if decision is not None:
                decisions.append(decision)
        self.decisions.append(tuple(decisions))
        self.counts.append(len(tokens.x))
        return tokens

    def along(self, tokens: Tokens, x: Tensor) -> Tensor:
        """What lies where the tokens lay [S · N, any], merged as the first block merged these."""
        for step in self.plan.blocks[len(self.tokens) - 1]:
            x = along(step, tokens, x)
        return x

    def leave(self, tokens: Tokens, x: Tensor) -> Tokens:
        """Tokens behind the block that the image is in."""
        self.tokens.append(x)
        self.sizes.append(tokens.size)
        return replace(tokens, x=x)

    def trace(self, logits: Tensor) -> Trace:
        """All of it."""
        return Trace(
            logits, self.embedded[0], tuple(self.tokens), tuple(self.sizes), tuple(self.counts),
            tuple(self.decisions),
        )  # fmt: skip


def unfold(x: Tensor, patch: Size) -> tuple[Tensor, Size]:
    """A map → tokens [S · N, C], pixels of one place in their patch together; N's rows, columns."""
    (channels, height, width), (ph, pw) = x.shape[1:], patch
    grid = height // ph, width // pw
    parts = x[0].reshape(channels, grid[0], ph, grid[1], pw)
    return parts.permute(2, 4, 1, 3, 0).reshape(-1, channels), grid


def fold(x: Tensor, patch: Size, grid: Size) -> Tensor:
    """The inverse, of as many tokens as a merge left of a grid."""
    sets = patch[0] * patch[1]
    rows, columns = shaped(grid, len(x) // sets)
    parts = x.reshape(*patch, rows, columns, -1).permute(4, 2, 0, 3, 1)
    return parts.reshape(1, -1, rows * patch[0], columns * patch[1])


def living(tokens: Tokens, x: Tensor) -> Tensor:
    """[S · N, C] with zeros where no token is."""
    return torch.where(tokens.size[:, None] > 0, x, 0.0)
