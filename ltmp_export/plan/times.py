"""Time as a function of the tokens of each block: what is measured is fitted to this.

An image takes a fixed time, and in every block a time for each token that attention runs on, one
for each that the MLP runs on, and one for each pair of tokens. Numbers may be floats or tensors,
so that training can differentiate it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ltmp_export.plan import mlps
from ltmp_export.plan.plan import Plan

if TYPE_CHECKING:
    from ltmp_export.plan.geometry import Geometry
    from ltmp_export.plan.vit import Vit


class Load(NamedTuple):
    """What a block is given, mean over images.

    Attributes:
        received: Tokens that its attention runs on.
        squared: Their square; in a batch that of the longest image, to which the others are padded.
        kept: Tokens that its MLP runs on.
    """

    received: Any
    squared: Any
    kept: Any


@dataclass(frozen=True)
class TimeModel:
    """Milliseconds per image of a reduced model, and of the dense one.

    Attributes:
        fixed: Whatever the tokens.
        received: For each token that a block's attention runs on.
        squared: For each pair of them.
        kept: For each token that its MLP runs on.
        dense: What the dense model took, measured.
        overhead: What the reduction adds to it where nothing is removed, by this model.
        residual: How far it is from what was measured, as a share of that, where farthest.
    """

    fixed: float
    received: float
    squared: float
    kept: float
    dense: float
    overhead: float = 0.0
    residual: float = 0.0

    def milliseconds(self, loads: Iterable[Load]) -> Any:
        """Of an image, from what each block is given."""
        each = (
            self.received * load.received + self.squared * load.squared + self.kept * load.kept
            for load in loads
        )
        return self.fixed + sum(each)

    def share(self, loads: Iterable[Load]) -> Any:
        """Of the dense model's time."""
        return self.milliseconds(loads) / self.dense


def loads(
    geometry: Geometry, plan: Plan, counts: Sequence[Sequence[int]], batch_size: int
) -> list[Load]:
    """What each block is given of images of these counts [n, depth], in batches as they come.

    The last batch wraps around to the first images.
    """
    rows = [geometry.rows(plan, image) for image in counts]
    starts = range(0, len(rows), batch_size)
    batches = [[(at + i) % len(rows) for i in range(batch_size)] for at in starts]
    found = []
    for block in range(geometry.depth):
        received = [image[block].received for image in rows]
        kept = [image[block].kept for image in rows]
        longest = [max(received[i] for i in batch) for batch in batches]
        squared = sum(most**2 for most in longest) / len(batches)
        found.append(Load(sum(received) / len(rows), squared, sum(kept) / len(rows)))
    return found


def linear_work(vit: Vit) -> tuple[int, int]:
    """Multiply-accumulates of a block's linear layers for a token of its attention, of its MLP."""
    attention = 4 * vit.width * vit.heads * vit.head_width
    mlp = sum(one.ins * one.outs for one in mlps.layers(vit.mlp, vit.width, vit.mlp_width))
    return (attention + mlp, 0) if vit.parallel else (attention, mlp)
