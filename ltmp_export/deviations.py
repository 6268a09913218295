"""How far one image through a file is from the reference that was made to take its decisions.

With the same decisions forced, every tensor of the file has its counterpart in the reference, block
by block, whatever happened before. All differences are relative: scores as `decisions` says, token
vectors to their own length, logits to the largest of the image if that is above 1. A difference is
NaN where the file has a NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltmp_export.decisions import Disagreement, disagreements, margin, unit
from ltmp_export.reference import Trace
from ltmp_export.taps import BlockRecord, Record, StepRecord
from ltmp_export.tokens import Decision, MergeDecision


@dataclass(frozen=True)
class ScoreDifference:
    """The score that is furthest off in one step of one image.

    Attributes:
        what: "similarity" or "importance".
        token: Row among the tokens that the step saw.
        score: In the file.
        expected: In the reference.
        difference: |score - expected|, relative.
    """

    what: str
    token: int
    score: float
    expected: float
    difference: float


@dataclass(frozen=True)
class StepDeviation:
    """One step of a block.

    Attributes:
        step: "merge" or "prune".
        threshold: The plan's.
        margin: Relative distance of the reference's closest decision.
        flips: The decisions that differ.
        undisputed: Largest relative score difference over the tokens both decide alike.
        largest: The score that is furthest off, or None where none was needed.
    """

    step: str
    threshold: float
    margin: float
    flips: tuple[Disagreement, ...]
    undisputed: float
    largest: ScoreDifference | None


@dataclass(frozen=True)
class BlockDeviation:
    """One block: its steps, and the largest difference of a token vector and of a size after it."""

    steps: tuple[StepDeviation, ...]
    tokens: float
    sizes: float


@dataclass(frozen=True)
class Deviation:
    """One image.

    Attributes:
        embedded: Largest difference of a token vector before the first block.
        blocks: As far as the file's decisions could be read.
        logits: Largest difference of a logit.
    """

    embedded: float
    blocks: tuple[BlockDeviation, ...]
    logits: float

    def flips(self) -> tuple[Disagreement, ...]:
        """All decisions that differ, in order."""
        return tuple(f for block in self.blocks for step in block.steps for f in step.flips)


def deviation(record: Record, trace: Trace, logits: NDArray[np.float32]) -> Deviation:
    """Compare a file's record of an image with the reference that took the record's decisions.

    Args:
        record: The inner tensors.
        trace: The reference.
        logits: [classes] of the file as it is, without its inner tensors read.
    """
    numbers = range(len(record.blocks))
    return Deviation(
        embedded=_vectors(record.embedded, trace.embedded),
        blocks=tuple(_block(number, record.blocks[number], trace) for number in numbers),
        logits=logit_difference(logits, trace.logits.numpy()),
    )


def logit_difference(logits: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest absolute difference, divided by max(1, the largest expected logit)."""
    return float(np.abs(logits - expected).max() / max(1.0, float(np.abs(expected).max())))


def _block(number: int, record: BlockRecord, trace: Trace) -> BlockDeviation:
    taken = zip(record.steps, trace.decisions[number], strict=True)
    sizes = 0.0
    if record.size is not None:
        sizes = float(np.abs(record.size - trace.sizes[number].numpy()).max())
    return BlockDeviation(
        steps=tuple(_step(number, step, decision) for step, decision in taken),
        tokens=_vectors(record.tokens, trace.tokens[number]),
        sizes=sizes,
    )


def _vectors(found: NDArray[np.float32], expected: Tensor) -> float:
    """Largest length of a difference of two rows, divided by that of the expected row."""
    wanted = expected.numpy()
    if found.shape != wanted.shape:
        return np.inf
    length = np.linalg.norm(wanted, axis=-1).clip(min=np.finfo(np.float32).tiny)
    return float((np.linalg.norm(found - wanted, axis=-1) / length).max())


def _step(number: int, record: StepRecord, decision: Decision) -> StepDeviation:
    merging = isinstance(decision, MergeDecision)
    flips = tuple(disagreements(number, decision, record.choice))
    score = torch.from_numpy(record.score)
    off = ((score - decision.score).abs() / unit(decision))[1:]  # without the class token
    stride = 2 if merging else 1
    disputed = {flip.token // stride - 1 for flip in flips}
    undisputed = [value for index, value in enumerate(off.tolist()) if index not in disputed]
    largest = None
    if len(off):
        at = int(off.argmax()) + 1  # a NaN counts as the largest
        what = "similarity" if merging else "importance"
        largest = ScoreDifference(
            what, at * stride, float(score[at]), float(decision.score[at]), float(off[at - 1])
        )
    return StepDeviation(
        step="merge" if merging else "prune",
        threshold=decision.threshold,
        margin=margin(decision),
        flips=flips,
        undisputed=max(undisputed, default=0.0),
        largest=largest,
    )
