"""The verdict of one image in one run, from what was observed.

What rounding explains is measured: `BOUND_FACTOR` times the largest difference of a score of the
same step that both sides decide alike, over all images; see `check_report`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ltmp_export.check_report import (
    BOUND_FACTOR,
    LEAST_BOUND,
    MOST_BOUND,
    TOLERANCES,
    Comparison,
    Flip,
)
from ltmp_export.deviations import BlockDeviation, logit_difference
from ltmp_export.inputs import Images
from ltmp_export.observation import Observation


@dataclass(frozen=True)
class Bounds:
    """How far from its threshold a decision may be for rounding to explain another one.

    Attributes:
        measured: Largest score difference over undisputed tokens, by block and place of the step.
    """

    measured: Mapping[tuple[int, int], float]

    @classmethod
    def of(cls, seen: Sequence[Observation]) -> Bounds:
        """Measure; an image whose scores are wrong altogether tells nothing about rounding."""
        found: dict[tuple[int, int], float] = defaultdict(float)
        for one in seen:
            for block, at in enumerate(one.deviation.blocks):
                for place, step in enumerate(at.steps):
                    right = step.largest is None or step.largest.difference <= TOLERANCES["scores"]
                    own = step.undisputed if right else 0.0
                    found[block, place] = max(found[block, place], own)
        return cls(found)

    def of_step(self, block: int, place: int) -> float:
        """The bound of one step of a block."""
        return min(max(BOUND_FACTOR * self.measured[block, place], LEAST_BOUND), MOST_BOUND)


def judge_all(seen: Sequence[Observation], images: Images, bounds: Bounds) -> list[Comparison]:
    """A comparison for each observation."""
    comparisons = [_judge(one, images, bounds) for one in seen]
    for index, other in _exchanged(seen, comparisons):
        hint = f"; its logits are those of {images.names[other]}"
        comparisons[index] = replace(comparisons[index], reason=comparisons[index].reason + hint)
    return comparisons


def _judge(one: Observation, images: Images, bounds: Bounds) -> Comparison:
    """The verdict of one image in one run."""
    flips = tuple(
        Flip(decision, bounds.of_step(block, place))
        for block, at in enumerate(one.deviation.blocks)
        for place, step in enumerate(at.steps)
        for decision in step.flips
    )
    verdict, block, where, reason = "equal", None, "", ""
    fault = next(_faults(one, bounds), None)
    if not np.isfinite(one.replay_logits).all():
        verdict, where = "inconclusive", "reference"
        reason = "NaN or infinite logits in the reference itself: nothing to compare with"
    elif fault is not None:
        verdict, (block, where, reason) = "fail", fault
    elif flips:
        verdict, block = "borderline", flips[0].decision.block
        where, more = f"block {block}", f"; {len(flips)} decisions in all" if flips[1:] else ""
        reason = f"{where}: {flips[0].describe()}{more}"
    margins = [
        (step.margin, number)
        for number, at in enumerate(one.deviation.blocks)
        for step in at.steps
        if step.margin < math.inf
    ]
    margin, margin_block = min(margins, default=(math.inf, None))
    return Comparison(
        image=images.names[one.number],
        group=images.groups[one.number],
        batch_size=one.run.size,
        order=one.run.order,
        verdict=verdict,
        where=where,
        block=block,
        reason=reason,
        counts=one.counts,
        expected_counts=one.expected_counts,
        flips=flips,
        logit_error=one.deviation.logits,
        top1=int(np.argmax(one.logits)),
        expected_top1=int(np.argmax(one.expected_logits)),
        margin=margin,
        margin_block=margin_block,
    )


Fault = tuple[int | None, str, str]  # block, where, reason


def _faults(one: Observation, bounds: Bounds) -> Iterator[Fault]:
    """What is wrong with one image, in the order of the computation."""
    found = one.deviation
    if not found.embedded <= TOLERANCES["tokens"]:
        yield None, "embedding", f"embedding: the tokens {differ(found.embedded, 'tokens')}"
    for number, block in enumerate(found.blocks):
        for words in _block_faults(number, block, bounds):
            yield number, f"block {number}", f"block {number}: {words}"
    if one.broken:
        number = len(found.blocks)
        yield number, f"block {number}", f"block {number}: broken decisions: {one.broken}"
    if not found.logits <= TOLERANCES["logits"]:
        words = f"with the same decisions the logits {differ(found.logits, 'logits')}"
        yield None, "head", f"head: {words}"
    counts_differ = one.stated is not None and tuple(one.stated) != one.counts
    if counts_differ or one.counts != one.replay_counts:
        yield None, "head", "the file's token counts are not those of its own decisions"
    apart = logit_difference(one.logits, one.tapped_logits)
    if not apart <= TOLERANCES["alone"]:
        yield None, "head", f"the file's logits change by {apart:.1e} when its tensors are read"


def _block_faults(number: int, block: BlockDeviation, bounds: Bounds) -> Iterator[str]:
    for place, step in enumerate(block.steps):
        off = step.largest
        if off is not None and not off.difference <= TOLERANCES["scores"]:
            yield (
                f"the {off.what} of token {off.token} is {off.score:.6g} in the file, "
                f"{off.expected:.6g} in the reference; they {differ(off.difference, 'scores')}"
            )
        bound = bounds.of_step(number, place)
        far = [flip for flip in step.flips if not flip.distance <= bound]
        if far:
            more = f"; {len(step.flips)} decisions of this step differ" if step.flips[1:] else ""
            yield far[0].describe(bound) + more
    if block.sizes:
        yield f"a token stands for {block.sizes:g} patches more or less than in the reference"
    if not block.tokens <= TOLERANCES["tokens"]:
        yield f"with the same decisions the tokens after it {differ(block.tokens, 'tokens')}"


def differ(error: float, kind: str) -> str:
    """How far off something is, and what is allowed."""
    if math.isnan(error):
        return "hold a NaN in the file"
    return f"differ by {error:.1e} (allowed {TOLERANCES[kind]:.0e})"


def _exchanged(
    seen: Sequence[Observation], comparisons: Sequence[Comparison]
) -> Iterator[tuple[int, int]]:
    """Comparisons that fail with the logits of another image, and that image."""
    expected = {one.number: one.expected_logits for one in seen}
    for index, (one, comparison) in enumerate(zip(seen, comparisons, strict=True)):
        if comparison.verdict != "fail":
            continue
        for other, logits in expected.items():
            near = logit_difference(one.logits, logits) <= TOLERANCES["logits"]
            if near and logit_difference(expected[one.number], logits) > TOLERANCES["logits"]:
                yield index, other
                break
