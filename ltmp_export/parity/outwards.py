"""The decisions of a file whose inner tensors nobody gives: those that fit what it gives.

The reference decides by itself. Where a decision of it is so near to its threshold that rounding
could turn it, and the file gives something else, the reference is also made to take the other one:
if the file gives what follows from that, it took that. Every other difference is the file's own.

What rounding could turn is measured: by how much PyTorch in float32 scores otherwise than the
reference, see `parity.tolerances`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltmp_export.backbones.trace import Trace
from ltmp_export.parity import outputs
from ltmp_export.parity.decisions import distances, margin
from ltmp_export.parity.differences import Deviation, rounding
from ltmp_export.parity.outputs import Given
from ltmp_export.parity.taps import BlockRecord, Choices, Record, StepRecord
from ltmp_export.parity.tolerances import BOUND_FACTOR, LEAST_ALLOWED, LEAST_BOUND
from ltmp_export.reference import Reference
from ltmp_export.steps.tokens import Choice, Decision, Matching, choose

TRIED = 8  # decisions of an image that are turned, at most


@dataclass(frozen=True)
class _Followed:
    """The reference under some decisions, and how far its outputs are from the file's."""

    trace: Trace
    choices: Choices
    apart: float


class Outwards:
    """Tells what a file decided from what it gives.

    Args:
        reference: In float64.
        single: In float32.
        names: Of the outputs.
    """

    def __init__(self, reference: Reference, single: Reference, names: Sequence[str]) -> None:
        self._reference, self._single, self._names = reference, single, names
        self._own: tuple[NDArray[np.float32], Trace] | None = None
        self._near: Deviation | None = None  # of that image

    def record(
        self, pixels: NDArray[np.float32], given: Given, counts: NDArray[np.int64] | None
    ) -> Record:
        """As if the file had been read.

        Args:
            pixels: [channels, H, W] of an image.
            given: What the file gives of it.
            counts: [depth] of its output token_counts, or None without one.
        """
        if self._own is None or self._own[0] is not pixels:
            self._own = pixels, self._reference.run(torch.from_numpy(pixels))
            self._near = None
        own = self._own[1]
        best = self._followed(own, tuple(map(_taken, own.decisions)), given, counts)
        if not best.apart <= LEAST_ALLOWED:
            for other in self._turned(pixels, best, given, counts):
                best = min(best, other, key=lambda one: one.apart)
        blocks = tuple(_block(best, number) for number in range(len(best.choices)))
        return Record(given, best.trace.embedded.numpy(), blocks, best.trace.counts)

    def unseen(self, trace: Trace, single: Deviation) -> str:
        """Which decision of an image rounding could turn, unseen, or "".

        Args:
            trace: The reference.
            single: How far PyTorch in float32 is from it.
        """
        for number, (block, near) in enumerate(zip(trace.decisions, single.blocks, strict=True)):
            for decision, step in zip(block, near.steps, strict=True):
                apart = margin(decision)
                if apart <= _explained(step.undisputed):
                    return (
                        f"a decision in block {number} lies {apart:.1e} from falling otherwise, "
                        "which outputs do not tell"
                    )
        return ""

    def _turned(
        self,
        pixels: NDArray[np.float32],
        best: _Followed,
        given: Given,
        counts: NDArray[np.int64] | None,
    ) -> Iterator[_Followed]:
        """The reference with one decision after the other turned that lies near its threshold."""
        image = torch.from_numpy(pixels)
        if self._near is None:
            single = self._single.run(image, best.choices)
            self._near = rounding(single, best.choices, best.trace, self._names)
        near, tried = self._near, 0
        for block in range(len(best.choices)):
            turned = None
            for place, decision in enumerate(best.trace.decisions[block]):
                explained = _explained(near.blocks[block].steps[place].undisputed)
                for index in _within(decision, explained)[: TRIED - tried]:
                    tried += 1
                    other = self._with(image, best, (block, place), index, given, counts)
                    turned = min(other, turned or other, key=lambda one: one.apart)
            if turned is not None and turned.apart < best.apart:
                best = turned
                yield turned

    def _with(
        self,
        image: Tensor,
        best: _Followed,
        at: tuple[int, int],
        index: int,
        given: Given,
        counts: NDArray[np.int64] | None,
    ) -> _Followed:
        """The reference with the decision about one token turned; what follows is free again."""
        block, place = at
        decision = best.trace.decisions[block][place]
        verdict = choose(decision.step, _beyond(decision, index))
        choice = _choice(decision, verdict.chosen, verdict.order)
        here = (*best.choices[block][:place], choice)
        free = [None] * (len(best.choices[block]) - len(here))
        forced = (*best.choices[:block], (*here, *free))
        trace = self._reference.run(image, cast(Any, forced))
        rest = tuple(map(_taken, trace.decisions))
        choices = (*best.choices[:block], (*here, *rest[block][len(here) :]), *rest[block + 1 :])
        return self._followed(trace, choices, given, counts)

    def _followed(
        self,
        trace: Trace,
        choices: Choices,
        given: Given,
        counts: NDArray[np.int64] | None,
    ) -> _Followed:
        wanted = outputs.expected(trace, self._names)
        apart = max(outputs.differences(given, wanted).values(), default=0.0)
        if counts is not None and tuple(counts) != trace.counts:
            apart = np.inf
        return _Followed(trace, choices, apart)


def _explained(undisputed: float) -> float:
    """How far from its threshold a decision may be for rounding to turn it."""
    return max(BOUND_FACTOR * undisputed, LEAST_BOUND)


def _beyond(decision: Decision, index: int) -> Tensor:
    """The scores of a decision with one of them on the other side of its threshold."""
    score, threshold = decision.score.clone(), decision.threshold
    step = max(1.5 * abs(float(score[index]) - threshold), LEAST_BOUND * abs(threshold))
    score[index] = threshold - step if decision.chosen[index] else threshold + step
    return score


def _within(decision: Decision, explained: float) -> list[int]:
    """The scores of a decision that are so near to its threshold, where it can be turned."""
    if decision.partners is not None and not isinstance(decision, Matching):
        return []
    near: list[int] = torch.nonzero(distances(decision) <= explained)[:, 0].tolist()
    return [index + decision.protected for index in near]


def _taken(decisions: Sequence[Decision]) -> tuple[Choice, ...]:
    """A block's own decisions, to be taken again."""
    return tuple(_choice(one, one.chosen, one.order) for one in decisions)


def _choice(decision: Decision, chosen: Tensor, order: Tensor | None) -> Choice:
    """What was chosen, with the decision's partners."""
    partners = decision.partners
    if partners is None:
        return Choice(chosen, None, order)
    merges = None if isinstance(decision, Matching) else partners.moved
    return Choice(chosen, partners.index, order, merges)


def _block(found: _Followed, number: int) -> BlockRecord:
    """A block of the reference, as if it had been read from the file."""
    trace, decisions = found.trace, found.trace.decisions[number]
    pairs = zip(found.choices[number], decisions, strict=True)
    steps = tuple(StepRecord(choice, decision.score.numpy()) for choice, decision in pairs)
    return BlockRecord(steps, trace.tokens[number].numpy(), trace.sizes[number].numpy())
