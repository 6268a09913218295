"""Whether two models differ by more than runs of one do, and what is said where they do not."""

from __future__ import annotations

from typing import Any

import pytest

from ltmp_export.timing.contenders import DENSE, REDUCED
from ltmp_export.timing.noise import differences, doubts
from ltmp_export.timing.report import Tried
from tests.makers.benched import made_report


def samples(model: float, dense: float, wobble: float) -> dict[tuple[str, int], Any]:
    """Three rounds; the middle one is the median, the others lie `wobble` beside it."""
    rounds = (1.0, 1 + wobble, 1 + 2 * wobble)
    return {
        (name, 1): [[time * factor] * 3 for factor in rounds]
        for name, time in ((REDUCED, model), (DENSE, dense))
    }


@pytest.mark.parametrize(
    ("model", "wobble", "told"),
    [
        (0.5, 0.1, True),
        (0.95, 0.1, False),
        (1.05, 0.1, False),
        (1.5, 0.1, True),
        (0.95, 0.01, True),
    ],
)
def test_a_difference_is_told_beyond_noise(model: float, wobble: float, told: bool) -> None:
    (found,) = differences(made_report(samples(model, 1.0, wobble)))
    assert found.change == pytest.approx(model - 1)
    assert found.noise == pytest.approx(wobble / (1 + wobble))
    assert found.told is told


def test_bests_by_chance_tell_nothing() -> None:
    """A machine that was quiet in one of the file's rounds, and busy in all others."""
    own, dense = [[2.0] * 3, [1.0] * 3, [2.0] * 3], [[1.9] * 3, [1.9] * 3, [1.8] * 3]
    report = made_report({(REDUCED, 1): own, (DENSE, 1): dense})
    (found,) = differences(report)
    assert found.change == pytest.approx(1 / 1.8 - 1)
    assert found.usual == pytest.approx(2 / 1.9 - 1)
    assert found.told is False
    assert "44.4% apart at best and 5.3% usually" in doubts(report)[0]


def test_one_round_tells_nothing() -> None:
    report = made_report({(name, 1): [[1.0] * 3] for name in (REDUCED, DENSE)})
    assert [one.told for one in differences(report)] == [None]
    assert doubts(report) == []


def test_nothing_is_said_of_a_model_that_is_faster() -> None:
    assert doubts(made_report(samples(0.5, 1.0, 0.1))) == []
    assert differences(made_report({(REDUCED, 1): [[1.0] * 3] * 3})) == ()


def test_what_is_too_near_says_by_how_much_and_what_to_do() -> None:
    assert doubts(made_report(samples(0.95, 1.0, 0.1))) == [
        "batch 1: reduced and dense take 0.95 and 1 ms an image, 5.0% apart at best and 5.0% "
        "usually, and runs of the same image differ by ±9.1%: too near to tell which is faster; "
        "time more rounds (--iterations) on a quieter machine, or try --threads auto"
    ]


def test_what_is_slower_says_why() -> None:
    tried = (Tried(REDUCED, 1, 1, 1.5),)
    (line,) = doubts(made_report(samples(1.5, 1.0, 0.1), threads_tried=tried))
    assert line.endswith(
        "reduced is slower, since the fixed cost of its 9 operators is more than its 2 GMACs less "
        "save; take larger batches"
    )
    times = {(name, 1): rows for (name, _), rows in samples(1.5, 1.0, 0.1).items()}
    times["other.onnx", 1] = times.pop((DENSE, 1))
    (line,) = doubts(made_report(times, baseline="other.onnx"))
    assert line.endswith("reduced is slower; try --threads auto")
