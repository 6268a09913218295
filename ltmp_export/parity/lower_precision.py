"""How near a file of lower precision is to the float32 model of its checkpoint, and must be.

That the file computes what it states is proven apart from this, see `precision.eager`. Here what
it states is judged, image by image, against the checkpoint's model in float64: by its decisions
and by its logits, where each side decides by itself, and where the model takes the file's
decisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ltmp_export.backbones.trace import Trace
from ltmp_export.parity import outputs
from ltmp_export.parity.decisions import disagreements
from ltmp_export.parity.outputs import Given
from ltmp_export.parity.taps import Choices
from ltmp_export.plan.outputs import LOGITS, answer
from ltmp_export.precision.formats import FP16, INT8


class Bounds(NamedTuple):
    """What a precision must keep.

    Attributes:
        top1: Least share of the images whose largest logit is the same one; one image may always
            differ.
        decisions: Least share of the decisions that are the same on the same tokens.
        answer: Largest relative difference of a logit, or of what stands for it, under the same
            decisions.
    """

    top1: float
    decisions: float
    answer: float


# Measured, nine families on digits and DeiT-S: decisions 99.88 % and more in float16, 98.4 % in
# int8 (97.5 % with decisions unprotected); logits 6e-4 and 0.047.
BOUNDS = {FP16: Bounds(0.98, 0.99, 0.005), INT8: Bounds(0.9, 0.96, 0.15)}
_REMEDIES = {
    FP16: "float16 is too coarse for this model, export fp32",
    INT8: "calibrate on images like those the model will see, or export fp16",
}


@dataclass(frozen=True)
class Distance:
    """One image, run alone, against the float32 model.

    Attributes:
        same_top1: Whether the largest logit is the same one; None where there are no logits.
        decisions: How many were taken on the way.
        flips: How many of them the model takes otherwise on the same tokens.
        counts_equal: Blocks with as many tokens as in the model that decides by itself.
        blocks: All of them.
        of: What differs: logits, else features, else all that is given.
        answer: Largest relative difference of it under the same decisions.
        own_answer: Of logits or features the same from the model that decides by itself.
    """

    same_top1: bool | None
    decisions: int
    flips: int
    counts_equal: int
    blocks: int
    of: str
    answer: float
    own_answer: float | None


@dataclass(frozen=True)
class Fidelity:
    """All images against the float32 model.

    Attributes:
        images: How many.
        of: What differs, see `Distance`.
        top1: Share with the same largest logit, where there are logits.
        decisions: Share of the decisions that are the same on the same tokens.
        counts: Share of (image, block) pairs with the same number of tokens, each side deciding by
            itself.
        answer: Largest relative difference of that under the same decisions.
        own_answer: The same, each side deciding by itself, where that can be compared.
        bounds: What the first, the second and the fourth must keep.
    """

    images: int
    of: str
    top1: float | None
    decisions: float
    counts: float
    answer: float
    own_answer: float | None
    bounds: Bounds

    def fault(self, kind: str) -> str:
        """Which bound of a precision is not kept, and what to do, or nothing."""
        reason = self._fault()
        return f"{reason}; {_REMEDIES[kind]}" if reason else ""

    def _fault(self) -> str:
        differing = 0 if self.top1 is None else round(self.images * (1 - self.top1))
        allowed = max(1, int(self.images * (1 - self.bounds.top1)))
        if differing > allowed:
            return (
                f"{differing} of {self.images} images have another top-1 than the float32 model; "
                f"allowed are {allowed}"
            )
        if not self.decisions >= self.bounds.decisions:
            return (
                f"{self.decisions:.1%} of the decisions are those of the float32 model; "
                f"expected {self.bounds.decisions:.0%}"
            )
        if not self.answer <= self.bounds.answer:
            return (
                f"with the same decisions the {self.of} differ from the float32 model's by "
                f"{self.answer:.2g}; allowed are {self.bounds.answer:g}"
            )
        return ""


def distance(
    given: Given,
    counts: Sequence[int],
    choices: Choices,
    replayed: Trace,
    own: Trace,
) -> Distance:
    """Compare one image of a file with the float32 model.

    Args:
        given: What the file gives.
        counts: Its tokens after each block.
        choices: Its decisions.
        replayed: The model in float64 with these decisions.
        own: The model deciding by itself.
    """
    taken = [
        (block, decision, choice)
        for block, (decisions, chosen) in enumerate(zip(replayed.decisions, choices, strict=False))
        for decision, choice in zip(decisions, chosen, strict=True)
    ]
    name = answer(given)
    compared = given if name is None else {name: given[name]}
    forced = outputs.differences(compared, outputs.expected(replayed, compared))
    own_answer = top1 = None
    if name is not None:
        wanted = outputs.expected(own, [name])
        own_answer = outputs.differences(compared, wanted)[name]
        top1 = outputs.top1(given) == outputs.top1(wanted) if name == LOGITS else None
    return Distance(
        same_top1=top1,
        decisions=sum(len(decision.score) - 1 for _, decision, _ in taken),
        flips=sum(len(list(disagreements(*one))) for one in taken),
        counts_equal=sum(a == b for a, b in zip(counts, own.counts, strict=False)),
        blocks=len(own.counts),
        of=name or "outputs",
        answer=max(forced.values()),
        own_answer=own_answer,
    )


def summarise(kind: str, found: Sequence[Distance]) -> Fidelity:
    """All images of a file of this precision."""
    decisions = sum(one.decisions for one in found)
    flips = sum(one.flips for one in found)
    same = [one.same_top1 for one in found if one.same_top1 is not None]
    own = [one.own_answer for one in found if one.own_answer is not None]
    return Fidelity(
        images=len(found),
        of=found[0].of,
        top1=sum(same) / len(same) if same else None,
        decisions=1 - flips / max(decisions, 1),
        counts=sum(one.counts_equal for one in found) / sum(one.blocks for one in found),
        answer=float(np.max([one.answer for one in found])),
        own_answer=float(np.max(own)) if own else None,
        bounds=BOUNDS[kind],
    )
