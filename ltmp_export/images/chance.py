"""Is a top-1 above what guessing gives? If not, the labels are likely in another order."""

from __future__ import annotations

import math

FEWEST = 10  # images that say anything
_TIMES = 2.0  # so many times chance above it: two of the folders 0 to 11 stand alike in both orders
_SHARE = 0.2  # of the way from chance to 1, where that is less (few classes)
_ERRORS = 3.0  # standard errors above chance: few images


def doubts(top1: float | None, count: int, classes: int, whose: str = "top-1") -> tuple[str, ...]:
    """A line where a top-1 is near chance; none where it is above, or the images say nothing.

    Near is what is not above chance by three standard errors, or not by twice chance (with few
    classes: by a fifth of what is left to 1).

    Args:
        top1: Share that is right, where there are labels.
        count: Of so many images.
        classes: That the model has.
        whose: What it is the top-1 of.
    """
    if top1 is None or count < FEWEST or classes < 2:
        return ()
    chance = 1.0 / classes
    enough = min(_TIMES * chance, _SHARE * (1.0 - chance))
    error = math.sqrt(chance * (1.0 - chance) / count)
    if top1 > chance + max(enough, _ERRORS * error):
        return ()
    return (
        f"{whose} is {top1:.1%} on {count} images of {classes} classes, near chance "
        f"({chance:.1%}): are the labels in the model's order (--class-order, --class-map), and is "
        "the normalisation its own (--mean, --std)?",
    )
