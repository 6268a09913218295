"""What a check found of one step of one block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ltmp_export.parity.limits import Limits
from ltmp_export.parity.replay import Observation
from ltmp_export.plan.plan import Plan


@dataclass(frozen=True)
class StepSummary:
    """One step of a block over all images and batches; all differences are relative.

    Attributes:
        block: Index of the block.
        step: "merge", "prune" or "fit".
        threshold: The checkpoint's, or None where a number is given instead.
        number: How many tokens are merged or pruned, or at most kept; None with a threshold.
        margin: The reference's closest decision.
        flips: Decisions that differ, every batch counted.
        flipped_images: Images with one.
        measured: Largest score difference over undisputed tokens.
        bound: Distance from the threshold that rounding explains, from `measured`.
        score_error: Largest score difference over all tokens.
        score_allowed: The tolerance for it.
        token_error: Largest difference of a token vector after the block.
        token_allowed: The tolerance for it.
        token_ratio: Mean difference of the token vectors, divided by PyTorch's in float32; the
            median over the images.
    """

    block: int
    step: str
    threshold: float | None
    number: int | None
    margin: float
    flips: int
    flipped_images: int
    measured: float
    bound: float
    score_error: float
    score_allowed: float
    token_error: float
    token_allowed: float
    token_ratio: float


def summaries(
    plan: Plan,
    seen: Sequence[Observation],
    allowed: Limits,
) -> Iterator[StepSummary]:
    """A row for each step of each block that was reached."""
    for block in range(len(plan.blocks)):
        steps = plan.deciding(block)
        reached = [one for one in seen if block < len(one.deviation.blocks)]
        for place in range(len(steps) if reached else 0):
            found = [(one.number, one.deviation.blocks[block].steps[place]) for one in reached]
            largest = [step.largest.difference for _, step in found if step.largest is not None]
            yield StepSummary(
                block=block,
                step=steps[place].action,
                threshold=steps[place].learned,
                number=steps[place].number,
                margin=min(step.margin for _, step in found),
                flips=sum(len(step.flips) for _, step in found),
                flipped_images=len({number for number, step in found if step.flips}),
                measured=allowed.measured[block, place],
                bound=allowed.bound((block, place)),
                score_error=max(largest, default=0.0),
                score_allowed=allowed.scores[block, place],
                token_error=max(one.deviation.blocks[block].tokens.difference for one in reached),
                token_allowed=allowed.tokens[block],
                token_ratio=allowed.ratios[block],
            )
