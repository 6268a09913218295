"""The search for the setting that meets a target."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from ltmp_export.calibration.search import TRIALS, Trial, search

FALLING: dict[str, Callable[[float], float]] = {
    "line": lambda at: 1 - at,
    "square": lambda at: (1 - at) ** 2,
    "steep at the start": lambda at: math.exp(-20 * at),
    "steep at the end": lambda at: 1 - at**20,
    "stairs": lambda at: 1 - math.floor(at * 400) / 400,
    "wavy": lambda at: 1 - at + 0.05 * math.sin(40 * at) * at * (1 - at),
}


@pytest.mark.parametrize("target", [0.05, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("ratio", FALLING.values(), ids=FALLING.keys())
def test_search_converges(ratio: Callable[[float], float], target: float) -> None:
    tried: list[float] = []

    def attempt(at: float) -> Trial[str]:
        tried.append(at)
        return Trial(at, ratio(at), f"made with {at}")

    found = search(attempt, 0.0, 1.0, target, 0.003)
    assert abs(found.ratio - target) <= 0.003
    assert found == Trial(found.at, ratio(found.at), f"made with {found.at}")
    assert len(tried) <= TRIALS
    assert all(0.0 <= at <= 1.0 for at in tried)


@pytest.mark.parametrize(("target", "end"), [(0.1, 1.0), (0.95, 0.0)])
def test_search_of_what_cannot_be_reached_gives_the_nearer_end(target: float, end: float) -> None:
    tried: list[float] = []

    def attempt(at: float) -> Trial[None]:
        tried.append(at)
        return Trial(at, 0.9 - 0.6 * at, None)

    assert search(attempt, 0.0, 1.0, target, 1e-3).at == end
    assert tried == [0.0, 1.0]  # nothing between them would help


def test_search_stops_at_an_end_that_will_do() -> None:
    tried: list[float] = []

    def attempt(at: float) -> Trial[None]:
        tried.append(at)
        return Trial(at, 1 - at, None)

    assert search(attempt, 0.0, 1.0, 0.999, 0.01).at == 0.0
    assert len(tried) == 2


def test_search_keeps_the_best_it_saw() -> None:
    """No setting is within the tolerance: the work jumps over the target."""
    ratios: list[float] = []

    def attempt(at: float) -> Trial[None]:
        ratio = 0.8 - 0.1 * at if at < 0.37 else 0.2 - 0.1 * at + 0.05 * math.sin(100 * at)
        ratios.append(ratio)
        return Trial(at, ratio, None)

    found = search(attempt, 0.0, 1.0, 0.5, 1e-3)
    assert abs(found.ratio - 0.5) == min(abs(ratio - 0.5) for ratio in ratios)
    assert len(ratios) == TRIALS


@pytest.mark.parametrize("curve", FALLING.values(), ids=list(FALLING))
@pytest.mark.parametrize("start", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("target", [0.9, 0.5, 0.1])
def test_search_from_a_start(curve: Callable[[float], float], start: float, target: float) -> None:
    """Near it few trials are needed; far from it the target is found all the same."""
    seen: list[float] = []

    def attempt(at: float) -> Trial[None]:
        seen.append(at)
        return Trial(at, curve(at), None)

    found = search(attempt, 0.0, 1.0, target, 0.003, start)
    assert abs(found.ratio - target) <= 0.003
    assert all(0.0 <= at <= 1.0 for at in seen)
    again = len(seen)
    search(attempt, 0.0, 1.0, target, 0.003, found.at)
    assert len(seen) - again == 1


def test_search_from_a_start_for_what_is_out_of_reach() -> None:
    for target, end in ((2.0, 0.0), (-1.0, 1.0)):
        found = search(lambda at: Trial(at, 1 - at, None), 0.0, 1.0, target, 1e-3, 0.4)
        assert found.at == end


def test_search_of_a_curve_that_turns_back() -> None:
    def ratio(at: float) -> float:
        return 1 - at + 0.3 * math.sin(4 * math.pi * at)

    found = search(lambda at: Trial(at, ratio(at), None), 0.0, 1.0, 0.6, 1e-3)
    assert abs(found.ratio - 0.6) <= 1e-3
