"""The one number to turn until a measured share of the work meets its target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

TRIALS = 30
_STEPS = 40  # the first step from a start is this part of the range


class Trial(NamedTuple, Generic[T]):
    """What a setting of the number gave.

    Attributes:
        at: The number.
        ratio: Share of the work left.
        result: What was made with it.
    """

    at: float
    ratio: float
    result: T


def search(
    attempt: Callable[[float], Trial[T]],
    low: float,
    high: float,
    target: float,
    tolerance: float,
    start: float | None = None,
    trials: int = TRIALS,
) -> Trial[T]:
    """Turn the number until the share of the work is within `tolerance` of the target.

    The share falls as the number grows, by and large: token counts are whole numbers, and what one
    block removes changes the scores of the next. So the search narrows a bracket, partly by
    interpolation, and keeps the best it saw.

    Args:
        attempt: Measures a setting.
        low: Where at least the target is left, if it can be.
        high: Where at most the target is left, if it can be.
        target: Share to be left.
        tolerance: How far from it will do.
        start: Where the target may be; by default the search begins at both ends.
        trials: Measurements at most.

    Returns:
        The nearest trial; it may be farther than the tolerance.
    """
    if start is None:
        left, right = attempt(low), attempt(high)
    else:
        first = attempt(start)
        if abs(first.ratio - target) <= tolerance:
            return first
        left, right = _bracket(attempt, low, high, target, first)
    best = _nearest(left, right, target)
    for number in range(trials - 2):
        if abs(best.ratio - target) <= tolerance or not left.ratio > target > right.ratio:
            break
        trial = attempt(_between(left, right, target, halve=number % 3 == 2))
        best = _nearest(best, trial, target)
        left, right = (trial, right) if trial.ratio > target else (left, trial)
    return best


def _bracket(
    attempt: Callable[[float], Trial[T]], low: float, high: float, target: float, before: Trial[T]
) -> tuple[Trial[T], Trial[T]]:
    """Two trials with the target between them if it is anywhere, in steps that double."""
    step = (high - low) / _STEPS
    up = before.ratio > target
    while True:
        at = min(before.at + step, high) if up else max(before.at - step, low)
        after = attempt(at)
        if (after.ratio > target) != up or at in (low, high):
            return (before, after) if up else (after, before)
        before, step = after, 2 * step


def _nearest(one: Trial[T], other: Trial[T], target: float) -> Trial[T]:
    return one if abs(one.ratio - target) <= abs(other.ratio - target) else other


def _between(left: Trial[T], right: Trial[T], target: float, *, halve: bool) -> float:
    part = 0.5 if halve else (left.ratio - target) / (left.ratio - right.ratio)
    part = min(max(part, 0.05), 0.95)
    return left.at + part * (right.at - left.at)
