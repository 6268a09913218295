"""How far one image through a file is from the reference that was made to take its decisions.

With the same decisions forced, every tensor of the file has its counterpart in the reference, block
by block, whatever happened before. All differences are relative: scores as `decisions` says, token
vectors to their own length, outputs as `outputs` says. A difference is NaN where the file has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltmp_export.backbones.trace import Trace
from ltmp_export.parity import outputs
from ltmp_export.parity.decisions import Disagreement, disagreements, margin
from ltmp_export.parity.outputs import Given
from ltmp_export.parity.taps import BlockRecord, Choices, Record, StepRecord
from ltmp_export.plan.step import Learned
from ltmp_export.steps import recorded
from ltmp_export.steps.tokens import Choice, Decision, choose


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
        step: What it does, see `Step.action`.
        threshold: The plan's; where the plan says how many, the reference's, see `tokens.Verdict`.
        margin: Relative distance of the reference's closest decision.
        flips: The decisions that differ.
        undisputed: Largest relative score difference over the tokens both decide alike.
        largest: The score that is furthest off, or None where none was needed.
        unfounded: A token that the file decides about otherwise than by its own scores and the
            plan in float32, with its score, or None.
        dropped: Tokens that a budget has no room for in the file.
    """

    step: str
    threshold: float
    margin: float
    flips: tuple[Disagreement, ...]
    undisputed: float
    largest: ScoreDifference | None
    unfounded: tuple[int, float] | None
    dropped: int


@dataclass(frozen=True)
class VectorDifference:
    """Token vectors: the row that is furthest off, by how much, and the mean of all; relative."""

    token: int
    difference: float
    mean: float


@dataclass(frozen=True)
class BlockDeviation:
    """One block: its steps, the token vectors after it, and the largest difference of a size."""

    steps: tuple[StepDeviation, ...]
    tokens: VectorDifference
    sizes: float


@dataclass(frozen=True)
class Deviation:
    """One image.

    Attributes:
        embedded: Largest difference of a token vector before the first block.
        blocks: As far as the file's decisions could be read.
        given: Difference of each output, see `parity.outputs`.
        excess: Of each int8 layer, how far its input is from the integers taken beyond half a
            step, in steps; of a `rounding`, how much that differs.
    """

    embedded: VectorDifference
    blocks: tuple[BlockDeviation, ...]
    given: Mapping[str, float]
    excess: Mapping[str, float]

    def flips(self) -> tuple[Disagreement, ...]:
        """All decisions that differ, in order."""
        return tuple(f for block in self.blocks for step in block.steps for f in step.flips)


def deviation(record: Record, trace: Trace, given: Given) -> Deviation:
    """Compare a file's record of an image with the reference that took the record's decisions.

    Args:
        record: The inner tensors.
        trace: The reference.
        given: What the file as it is gives, without its inner tensors read.
    """
    numbers = range(len(record.blocks))
    return Deviation(
        embedded=_vectors(record.embedded, trace.embedded),
        blocks=tuple(_block(number, record.blocks[number], trace) for number in numbers),
        given=outputs.differences(given, outputs.expected(trace, given)),
        excess=trace.excess,
    )


def rounding(single: Trace, choices: Choices, double: Trace, names: Sequence[str]) -> Deviation:
    """How far float32 in PyTorch is from float64 where both took the same decisions.

    A right file is off by about as much; a wrong one has nothing to do with it. `names` are of
    the outputs to compare.
    """
    blocks = []
    for taken, tokens, size, decisions in zip(
        choices, single.tokens, single.sizes, single.decisions, strict=False
    ):
        steps = [
            StepRecord(choice, decision.score.numpy())
            for choice, decision in zip(taken, decisions, strict=True)
        ]
        blocks.append(BlockRecord(tuple(steps), tokens.numpy(), size.numpy()))
    given = outputs.expected(single, names)
    record = Record(given, single.embedded.numpy(), tuple(blocks), single.counts)
    apart = {path: abs(excess - double.excess[path]) for path, excess in single.excess.items()}
    return replace(deviation(record, double, given), excess=apart)


def is_finite(trace: Trace, names: Sequence[str]) -> bool:
    """Whether all that a file is compared with in a trace is a number."""
    scores = [d.score[d.protected :] for block in trace.decisions for d in block]
    given = (trace.output(name) for name in names)
    everything = (*given, trace.embedded, *trace.tokens, *scores)
    return all(bool(tensor.isfinite().all()) for tensor in everything)


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


def _vectors(found: NDArray[np.float32], expected: Tensor) -> VectorDifference:
    """Lengths of the differences of rows, divided by those of the expected rows."""
    wanted = expected.numpy()
    if found.shape != wanted.shape:
        return VectorDifference(0, np.inf, np.inf)
    length = np.linalg.norm(wanted, axis=-1).clip(min=np.finfo(np.float32).tiny)
    with np.errstate(invalid="ignore"):
        off = np.linalg.norm(found - wanted, axis=-1) / length
    token = int(off.argmax())  # a NaN counts as the largest
    return VectorDifference(token, float(off[token]), float(off.mean()))


def _step(number: int, record: StepRecord, decision: Decision) -> StepDeviation:
    score = torch.from_numpy(record.score)
    decision, apart = decision.compared(score)
    flips = tuple(disagreements(number, decision, record.choice))
    first = decision.protected
    off = apart[first:]
    disputed = {flip.token for flip in flips}
    undisputed = [
        value
        for index, value in enumerate(off.tolist(), first)
        if decision.row(index) not in disputed
    ]
    largest = None
    if len(off):
        at = int(off.argmax()) + first  # a NaN counts as the largest
        what = recorded.of(decision.step).WORDS.score
        found, expected = float(score[at]), float(decision.score[at])
        largest = ScoreDifference(what, decision.row(at), found, expected, float(off[at - first]))
    wrong = _unfounded(decision, record.choice, score)
    unfounded = None if wrong is None else (decision.row(wrong), float(score[wrong]))
    return StepDeviation(
        step=decision.step.action,
        threshold=decision.threshold,
        margin=margin(decision),
        flips=flips,
        undisputed=max(undisputed, default=0.0),
        largest=largest,
        unfounded=unfounded,
        dropped=int((~record.choice.chosen).sum()) if decision.step.budget is not None else 0,
    )


def _unfounded(decision: Decision, choice: Choice, score: Tensor) -> int | None:
    """The first score [n] of the file that does not lead to what the file chose, or None."""
    score = score.clone()
    score[: decision.protected] = decision.score[: decision.protected]  # infinite
    step = decision.step
    if isinstance(step, Learned):
        step = step.at(float(np.float32(step.threshold)))
    own = choose(step, score)
    wrong = torch.nonzero(choice.chosen != own.chosen)[:, 0].tolist()
    if not wrong and choice.order is not None and own.order is not None:
        wrong = choice.order[choice.order != own.order].tolist()
    return wrong[0] if wrong else None


def alike(one: Any, other: Any) -> bool:
    """Whether two values are of the same numbers, bit for bit, however they are nested; no NaN."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if type(one) is not type(other):
        return False
    if is_dataclass(one):
        return alike(vars(one), vars(other))
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)
