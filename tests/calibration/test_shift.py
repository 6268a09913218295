"""Learned thresholds that move together."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ltmp_export.calibration.shift import shifted

LEARNED = {"merge": [0.99, 0.9, 0.999, 1.0], "prune": [0.01, 0.002, 0.5, 0.0]}


def test_no_shift_changes_nothing() -> None:
    assert shifted(LEARNED, 0.0) == LEARNED


@pytest.mark.parametrize("by", [-12.0, -1.5, -0.01, 0.01, 1.5, 12.0])
def test_shift_keeps_the_order_and_removes_more_above_0(by: float) -> None:
    found = shifted(LEARNED, by)
    for kind, values in LEARNED.items():
        moved = np.array(found[kind])
        np.testing.assert_array_equal(np.argsort(moved), np.argsort(values))
        assert ((moved >= 0) & (moved <= 1)).all()
        up = by > 0 if kind == "prune" else by < 0
        inside = (np.array(values) > 0) & (np.array(values) < 1)
        assert ((moved > values) == up)[inside].all()


def test_a_shift_is_one_factor_of_the_small_and_undone_by_its_opposite() -> None:
    learned = {"merge": [0.999, 0.9], "prune": [0.001, 0.002]}
    found = shifted(learned, math.log(2))
    np.testing.assert_allclose(found["prune"], [0.002, 0.004], rtol=3e-3)
    np.testing.assert_allclose(1 - found["merge"][0], 0.002, rtol=3e-3)
    back = shifted(found, -math.log(2))
    for kind, values in learned.items():
        np.testing.assert_allclose(back[kind], values, rtol=1e-9)


def test_thresholds_at_their_ends_move_inwards_only() -> None:
    """A block that merges and prunes nothing does not begin to when less is to be removed."""
    found = shifted({"merge": [1.0], "prune": [0.0]}, 5.0)
    assert 0.5 < found["merge"][0] < 1
    assert 0 < found["prune"][0] < 0.5
    assert shifted({"merge": [1.0], "prune": [0.0]}, -5.0) == {"merge": [1.0], "prune": [0.0]}
    assert shifted({"merge": [0.0], "prune": [1.0]}, 5.0) == {"merge": [0.0], "prune": [1.0]}
