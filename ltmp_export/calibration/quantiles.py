"""Thresholds that remove given shares of the tokens, block by block, from the scores of images.

A step that is to remove a tenth of the tokens has its threshold where a tenth of the scores lie on
its other side. Scores depend on what the blocks before removed, so the blocks are gone through in
order, all images together. Images differ in their scores: one that is easy to shorten is shortened
more than its share, which is what thresholds are for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltmp_export.plan.vit import Vit
from ltmp_export.training.budget import mac_ratio
from ltmp_export.training.forms import candidates
from ltmp_export.training.masked import Masked
from ltmp_export.training.model import MaskedVit

SCHEDULES = ("even", "early", "late")
_NEAR = 200  # of the gaps between scores within a two-hundredth of the place, take the widest


@dataclass(frozen=True)
class Shares:
    """Which part of its incoming tokens a block removes, and how.

    Attributes:
        merge: Part of the removed tokens that merging takes, where a family also prunes.
        schedule: "even" for the same share in each block; "early" and "late" for a share that
            falls or rises over the blocks linearly, to or from zero.
    """

    merge: float
    schedule: str

    def of_block(self, block: int, depth: int, intensity: float) -> float:
        """Share of its tokens that a block removes, in [0, 1)."""
        place = (block + 1) / (depth + 1)
        weight = {"even": 1.0, "early": 2 * (1 - place), "late": 2 * place}[self.schedule]
        return 1.0 - math.pow(1.0 - intensity, weight)

    def of_step(self, kind: str, steps: Sequence[str]) -> float:
        """Part of a block's removals that a step takes."""
        if len(steps) == 1:
            return 1.0
        return self.merge if kind == "merge" else 1.0 - self.merge


def expected(vit: Vit, shares: Shares, target: float) -> float:
    """The intensity that leaves a share of the blocks' work if every image loses its share."""

    def left(intensity: float) -> float:
        lost = [shares.of_block(block, vit.depth, intensity) for block in range(vit.depth)]
        kept = torch.tensor([1.0 - share for share in lost], dtype=torch.float64).cumprod(0)
        return float(mac_ratio(vit, kept))

    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) > target else (low, middle)
    return low


class Look(NamedTuple):
    """What a step sees of a batch.

    Attributes:
        scores: [n] float32, see `training.forms.candidates`.
        living: Tokens before it.
    """

    scores: NDArray[np.float32]
    living: int


class Walk:
    """A batch of images on its way through the blocks.

    Args:
        model: In eval mode, in the aligned form; its own thresholds are not looked at.
        images: [B, channels, H, W].
    """

    def __init__(self, model: MaskedVit, images: Tensor) -> None:
        self._model, self._kinds = model, model.steps
        with torch.inference_mode():
            self._embedded = model.embed(images)
        self._tokens: Masked | None = None
        self._taken: tuple[float, ...] = ()

    @torch.inference_mode()
    def look(self, taken: tuple[float, ...]) -> Look:
        """What that step sees before which all others had these thresholds, in their order.

        Where it was here before with the first of them, it goes on from there.
        """
        if self._tokens is None or taken[: len(self._taken)] != self._taken:
            self._tokens, self._taken = self._model.attend(0, self._embedded), ()
        tokens = self._tokens
        for place in range(len(self._taken), len(taken)):
            block, step = divmod(place, len(self._kinds))
            tokens = self._model.step(self._kinds[step], tokens, torch.tensor(taken[place]))
            if step + 1 == len(self._kinds):
                tokens = self._model.attend(block + 1, self._model.finish(block, tokens))
        self._tokens, self._taken = tokens, taken
        scores = candidates(self._kinds[len(taken) % len(self._kinds)], tokens)
        return Look(scores.float().cpu().numpy(), round(float(tokens.alive.sum())))


def thresholds(
    look: Callable[[tuple[float, ...]], Sequence[Look]],
    depth: int,
    kinds: Sequence[str],
    shares: Shares,
    intensity: float,
) -> dict[str, list[float]]:
    """Find thresholds that remove these shares.

    Args:
        look: What all images show a step, batch by batch, see `Walk.look`.
        depth: Blocks.
        kinds: Steps of each, in their order.
        shares: How removals are spread.
        intensity: How much is removed: 0 nothing, towards 1 all.

    Returns:
        Per kind one for each block: float32 values in [0, 1], midway between two scores.
    """
    owed = dict.fromkeys(kinds, 0.0)  # to be removed, with what was left over before
    taken: list[float] = []
    before = incoming = 0
    for place in range(depth * len(kinds)):
        block, step = divmod(place, len(kinds))
        seen = look(tuple(taken))
        living = sum(one.living for one in seen)
        if place:
            last = kinds[step - 1]
            owed[last] = max(0.0, owed[last] - (before - living))
        if step == 0:
            incoming = living
        share = shares.of_block(block, depth, intensity) * shares.of_step(kinds[step], kinds)
        owed[kinds[step]] += share * incoming
        scores = np.concatenate([one.scores for one in seen])
        taken.append(_threshold(kinds[step], torch.from_numpy(scores), round(owed[kinds[step]])))
        before = living
    return {kind: taken[number :: len(kinds)] for number, kind in enumerate(kinds)}


def _threshold(kind: str, scores: Tensor, wanted: int) -> float:
    """Where `wanted` candidates lie on the side that goes; nothing goes at 1 (merge) or 0."""
    pooled = scores.double().clamp(0, 1).sort().values
    total = len(pooled)
    if total == 0:
        return float(kind == "merge")
    wanted = min(max(wanted, 0), total)
    below = total - wanted if kind == "merge" else wanted  # scores under the threshold
    ends = torch.cat([pooled.new_zeros(1), pooled, pooled.new_ones(1)])
    if 0 < below < total:
        near = 1 + total // _NEAR
        first, last = max(1, below - near), min(total - 1, below + near)
        below = first + int(ends[first : last + 2].diff().argmax())
        return _float32((ends[below] + ends[below + 1]) / 2)
    return float(below > 0) if kind == "merge" or below == 0 else _float32(pooled[-1])


def _float32(value: Tensor) -> float:
    return float(value.float())
