"""Rings of a grid in float32, and which of them two roundings split (`plan.rings`)."""

from __future__ import annotations

import numpy as np
import pytest

from ltmp_export.plan import rings
from ltmp_export.steps.pattern.step import Pattern, ranges


@pytest.mark.parametrize(
    ("pattern", "rounding", "distinct"),
    [("l1", "fma", 16), ("l2", "fma", 27), ("linf", "fma", 7), ("linf", "plain", 7)],
)
def test_a_rounding_may_split_rings(pattern: str, rounding: str, distinct: int) -> None:
    """Thirteen rings in l1, 25 in l2: as the originals saw them where they were run."""
    z = rings.distances(14, pattern, rounding)
    assert len(set(z)) == distinct
    assert all(value == np.float32(value) for value in z)


def test_roundings_differ() -> None:
    assert rings.spaced(-7, 7, 14, "fma") != rings.spaced(-7, 7, 14, "plain")
    assert rings.spaced(-7, 7, 14, "fma")[0::13] == [-7.0, 7.0]


def test_the_first_of_equally_near_counts() -> None:
    assert rings.nearest([1.0, 1.0, 2.0, 2.0, 3.0, 3.0], 3) == 1.0


@pytest.mark.parametrize("rows", ["", "3-1", "0-1,1-3", "0-9", "a", "1", "0-1,"])
def test_patterns_that_are_none(rows: str) -> None:
    assert not Pattern(rows, 9).possible(10, 1)


def test_ranges() -> None:
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2,5-5,7-8"
    assert Pattern("0-2,5-5,7-8", 9).kept == (0, 1, 2, 5, 7, 8)
    assert Pattern("0-2,5-5,7-8", 9).after(10, 1) == 7
