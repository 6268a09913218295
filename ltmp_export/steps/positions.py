"""Where the tokens lie, for attention that knows of it; in PyTorch, of one image or a batch.

Of a token that several have become it is either the sums over its patches, from which their mean
follows whatever the order, or the place of the one that the others merged into.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Positions:
    """Where tokens lie.

    Attributes:
        rows: Summed, [..., N, 3]: of its patches the rows, the columns, and how many there are, all
            0 for a token that is none. Else [..., N, 1]: the patch, counted row by row, or how
            many patches there are for a token that is none.
        summed: Which.
    """

    rows: Tensor
    summed: bool

    def taken(self, pick: Callable[[Tensor], Tensor]) -> Positions:
        """Of some of the tokens, as `pick` takes them from rows of any channels."""
        return replace(self, rows=pick(self.rows))

    def merged(self, into: Tensor, others: Positions) -> Positions:
        """Of destinations that others merge into.

        Args:
            into: [..., D, S] 1 where a source goes to a destination, else 0.
            others: Of the S sources.
        """
        if not self.summed:
            return self
        return replace(self, rows=self.rows + into.to(self.rows.dtype) @ others.rows)

    def received(self, partner: Tensor, others: Positions) -> Positions:
        """The same of one image: the k-th of the others goes to destination `partner[k]`."""
        if not self.summed:
            return self
        return replace(self, rows=self.rows.index_add(0, partner, others.rows))

    def fused(self, chosen: Tensor, score: Tensor) -> Positions:
        """Of one token that has become of those chosen, which none of them is the other's.

        Its place is theirs together, or that of the one with the highest score, the first of
        equals.

        Args:
            chosen: [N] bool, some.
            score: [N].
        """
        if self.summed:
            return replace(self, rows=self.rows[chosen].sum(-2, keepdim=True))
        best = score.masked_fill(~chosen, -torch.inf).argmax()
        return replace(self, rows=self.rows[best : best + 1])


def initial(grid: tuple[int, int], protected: int, summed: bool, like: Tensor) -> Positions:
    """Where the tokens of an image lie before the first block [N, 1 or 3].

    Args:
        grid: Rows and columns of patches.
        protected: Tokens in front of the patches.
        summed: As of `Positions`.
        like: Whose device and precision to take.
    """
    height, width = grid
    if not summed:
        patches = torch.arange(height * width, dtype=like.dtype, device=like.device)
        front = patches.new_full((protected,), height * width)
        return Positions(torch.cat([front, patches])[:, None], summed)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rows = torch.stack([y, x, torch.ones_like(x)], -1).reshape(-1, 3).to(like)
    return Positions(torch.cat([rows.new_zeros(protected, 3), rows]), summed)
