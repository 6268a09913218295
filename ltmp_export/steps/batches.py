"""The tokens of a batch whose images all have the same number, differentiable: for training.

Shapes: B images, N tokens, C channels. Faces called `batched` take steps of them, eager and plain
PyTorch; no number of tokens depends on the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from ltmp_export.plan import faces
from ltmp_export.plan.step import Step
from ltmp_export.steps.positions import Positions


@dataclass(frozen=True)
class Batch:
    """The tokens of a batch, between attention and MLP of a block or before one.

    Attributes:
        x: [B, N, C] token vectors.
        size: [B, N] patches that attention takes each token for; 0 for one that is none.
        scores: By the names of `plan.scores`, [B, N] each, +inf for protected rows.
        protected: How many rows in front are never merged away.
        owned: [B, N] patches that each token owns where attention does not weigh by them; None
            while each owns as many as it stands for.
        handed: What steps hand on to those of the same kind in later blocks, by names of theirs.
        positions: Where they lie, where attention knows of it.
    """

    x: Tensor
    size: Tensor
    scores: Mapping[str, Tensor]
    protected: int = 1
    owned: Tensor | None = None
    handed: Mapping[str, Tensor] = field(default_factory=dict)
    positions: Positions | None = None

    def patches_owned(self) -> Tensor:
        """[B, N] patches that each token owns, of protected ones 1."""
        return self.size if self.owned is None else self.owned

    def rows(self, places: Tensor) -> Batch:
        """The tokens in these places [B, n], of each image its own."""
        where = self.positions
        return replace(
            self,
            x=_taken(self.x, places),
            size=_taken(self.size, places),
            scores={name: _taken(score, places) for name, score in self.scores.items()},
            owned=None if self.owned is None else _taken(self.owned, places),
            positions=None if where is None else where.taken(lambda rows: _taken(rows, places)),
        )


def _taken(values: Tensor, places: Tensor) -> Tensor:
    """Rows of [B, N] or [B, N, channels]."""
    if values.dim() == 2:
        return values.gather(1, places)
    return values.gather(1, places[:, :, None].expand(-1, -1, values.shape[2]))


def require(step: type[Step]) -> None:
    """Check that a step can be taken of a batch.

    Raises:
        InputError: It cannot: it has no face for it.
    """
    faces.face(step, "batched")


def take(step: Step, tokens: Batch, weights: Mapping[str, Tensor]) -> Batch:
    """Take one step of a plan.

    Args:
        step: The step.
        tokens: What it is taken on.
        weights: Of the reduction itself, by name.
    """
    taken: Batch = faces.face(type(step), "batched").take(step, tokens, weights)
    return taken


def restore(
    step: Step, given: Batch, made: Batch, left: Batch, weights: Mapping[str, Tensor]
) -> Batch:
    """Tokens behind a block whose step restores what it took away, as of `tokens.restore`."""
    restored: Batch = faces.face(type(step), "batched").restore(step, given, made, left, weights)
    return restored
