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
from numpy.typing import NDArray

from ltmp_export.backbones.trace import Trace
from ltmp_export.parity.decisions import disagreements
from ltmp_export.parity.differences import logit_difference
from ltmp_export.parity.taps import Choices
from ltmp_export.precision.formats import FP16, INT8


class Bounds(NamedTuple):
    """What a precision must keep.

    Attributes:
        top1: Least share of the images whose largest logit is the same one; one image may always
            differ.
        decisions: Least share of the decisions that are the same on the same tokens.
        logits: Largest relative difference of a logit under the same decisions.
    """

    top1: float
    decisions: float
    logits: float


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
        same_top1: Whether the largest logit is the same one.
        decisions: How many were taken on the way.
        flips: How many of them the model takes otherwise on the same tokens.
        counts_equal: Blocks with as many tokens as in the model that decides by itself.
        blocks: All of them.
        logits: Largest relative difference of a logit under the same decisions.
        own_logits: The same from the model that decides by itself.
    """

    same_top1: bool
    decisions: int
    flips: int
    counts_equal: int
    blocks: int
    logits: float
    own_logits: float


@dataclass(frozen=True)
class Fidelity:
    """All images against the float32 model.

    Attributes:
        images: How many.
        top1: Share with the same largest logit.
        decisions: Share of the decisions that are the same on the same tokens.
        counts: Share of (image, block) pairs with the same number of tokens, each side deciding by
            itself.
        logits: Largest relative difference of a logit under the same decisions.
        own_logits: The same, each side deciding by itself.
        bounds: What the first, the second and the fourth must keep.
    """

    images: int
    top1: float
    decisions: float
    counts: float
    logits: float
    own_logits: float
    bounds: Bounds

    def fault(self, kind: str) -> str:
        """Which bound of a precision is not kept, and what to do, or nothing."""
        reason = self._fault()
        return f"{reason}; {_REMEDIES[kind]}" if reason else ""

    def _fault(self) -> str:
        differing = round(self.images * (1 - self.top1))
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
        if not self.logits <= self.bounds.logits:
            return (
                f"with the same decisions the logits differ from the float32 model's by "
                f"{self.logits:.2g}; allowed are {self.bounds.logits:g}"
            )
        return ""


def distance(
    logits: NDArray[np.float32],
    counts: Sequence[int],
    choices: Choices,
    replayed: Trace,
    own: Trace,
) -> Distance:
    """Compare one image of a file with the float32 model.

    Args:
        logits: [classes] of the file.
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
    wanted = own.logits.numpy()
    return Distance(
        same_top1=bool(np.argmax(logits) == np.argmax(wanted)),
        decisions=sum(len(decision.score) - 1 for _, decision, _ in taken),
        flips=sum(len(list(disagreements(*one))) for one in taken),
        counts_equal=sum(a == b for a, b in zip(counts, own.counts, strict=False)),
        blocks=len(own.counts),
        logits=logit_difference(logits, replayed.logits.numpy()),
        own_logits=logit_difference(logits, wanted),
    )


def summarise(kind: str, found: Sequence[Distance]) -> Fidelity:
    """All images of a file of this precision."""
    decisions = sum(one.decisions for one in found)
    flips = sum(one.flips for one in found)
    return Fidelity(
        images=len(found),
        top1=sum(one.same_top1 for one in found) / len(found),
        decisions=1 - flips / max(decisions, 1),
        counts=sum(one.counts_equal for one in found) / sum(one.blocks for one in found),
        logits=float(np.max([one.logits for one in found])),
        own_logits=float(np.max([one.own_logits for one in found])),
        bounds=BOUNDS[kind],
    )
