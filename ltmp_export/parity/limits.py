"""How large differences may be: what rounding does, measured on all images of a check."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ltmp_export.parity.differences import Deviation
from ltmp_export.parity.lower_precision import BOUNDS
from ltmp_export.parity.replay import Observation
from ltmp_export.parity.tolerances import (
    BOUND_FACTOR,
    LEAST_ALLOWED,
    LEAST_BOUND,
    LEAST_EXCESS,
    REROUNDED,
    ROUNDING_FACTOR,
)
from ltmp_export.precision.formats import INT8, Precision

StepKey = tuple[int, int]  # block, place of the step in it
SMALLEST_MEAN = 1e-8  # no division by zero where a model computes exactly


@dataclass(frozen=True)
class Limits:
    """How large differences may be, all relative.

    Attributes:
        embedded: Of a token vector before the first block.
        tokens: Of a token vector after each block.
        sizes: Of a size after each block, absolute: 0 where sizes are whole numbers.
        scores: Of a score, by step.
        given: Of each output.
        excess: How far an int8 layer's input may be from its integers beyond half a step, in steps.
        measured: Largest score difference of the file over undisputed tokens, by step; where its
            scores are not seen, PyTorch's in float32.
        ratios: Mean difference of the token vectors after each block, divided by that of float32
            in PyTorch; the median over the images.
        rerounded: Of outputs of the same image from two runs, where float32 products are rounded
            to integers and rounding alone takes some to the next one.
    """

    embedded: float
    tokens: Mapping[int, float]
    sizes: Mapping[int, float]
    scores: Mapping[StepKey, float]
    given: Mapping[str, float]
    excess: float
    measured: Mapping[StepKey, float]
    ratios: Mapping[int, float]
    rerounded: float

    def bound(self, key: StepKey) -> float:
        """How far from its threshold a decision may be for rounding to explain another one."""
        return min(max(BOUND_FACTOR * self.measured[key], LEAST_BOUND), self.scores[key])


def limits(seen: Sequence[Observation], precision: Precision) -> Limits:
    """Measure what rounding does."""
    rounding = [one.rounding for one in seen]
    blocks = [(number, block) for one in rounding for number, block in enumerate(one.blocks)]
    scores = {key: _allowed(values) for key, values in _score_differences(rounding).items()}
    return Limits(
        embedded=_allowed([one.embedded.difference for one in rounding]),
        tokens={
            number: _allowed([b.tokens.difference for n, b in blocks if n == number])
            for number in dict(blocks)
        },
        sizes={
            number: _allowed_sizes([b.sizes for n, b in blocks if n == number])
            for number in dict(blocks)
        },
        scores=scores,
        given={name: _allowed([one.given[name] for one in rounding]) for name in rounding[0].given},
        excess=max(LEAST_EXCESS, ROUNDING_FACTOR * _largest(rounding)),
        measured=_measured(seen, scores),
        ratios=_ratios(seen),
        rerounded=REROUNDED * BOUNDS[INT8].answer if precision.qdq else 0.0,
    )


def _largest(rounding: Sequence[Deviation]) -> float:
    """The largest finite excess of float32 in PyTorch."""
    found = [excess for one in rounding for excess in one.excess.values()]
    return max((excess for excess in found if math.isfinite(excess)), default=0.0)


def _allowed(rounding: Sequence[float]) -> float:
    finite = [error for error in rounding if math.isfinite(error)]
    return max(LEAST_ALLOWED, ROUNDING_FACTOR * max(finite, default=0.0))


def _allowed_sizes(rounding: Sequence[float]) -> float:
    """Whole sizes are the same in float32; of others rounding tells."""
    return _allowed(rounding) if any(rounding) else 0.0


def _score_differences(deviations: Sequence[Deviation]) -> dict[StepKey, list[float]]:
    found: dict[StepKey, list[float]] = {}
    for one in deviations:
        for number, block in enumerate(one.blocks):
            for place, step in enumerate(block.steps):
                differences = found.setdefault((number, place), [])
                if step.largest is not None:
                    differences.append(step.largest.difference)
    return found


def _measured(
    seen: Sequence[Observation], allowed: Mapping[StepKey, float]
) -> dict[StepKey, float]:
    """An image whose scores are wrong altogether tells nothing about the file's rounding.

    Where they are not seen, PyTorch's in float32 stand for them.
    """
    found = dict.fromkeys(allowed, 0.0)
    for one in seen:
        scored = one.deviation if one.inside else one.rounding
        for number, block in enumerate(scored.blocks):
            for place, step in enumerate(block.steps):
                key = number, place
                if step.largest is not None and step.largest.difference <= allowed[key]:
                    found[key] = max(found[key], step.undisputed)
    return found


def _ratios(seen: Sequence[Observation]) -> dict[int, float]:
    """The median: a single image may be wrong altogether. One that leads to a NaN is left out."""
    found: dict[int, list[float]] = {}
    for one in seen:
        for number in range(len(one.deviation.blocks)):
            found.setdefault(number, []).append(mean_ratio(one, number))
    known = {number: [r for r in own if not math.isnan(r)] for number, own in found.items()}
    return {number: float(np.median(ratios or [0.0])) for number, ratios in known.items()}


def mean_ratio(one: Observation, block: int) -> float:
    """Mean difference of an image's token vectors after a block, divided by that of rounding."""
    rounding = max(one.rounding.blocks[block].tokens.mean, SMALLEST_MEAN)
    return one.deviation.blocks[block].tokens.mean / rounding
