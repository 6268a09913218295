"""Pruning on small tables worked out by hand (METHOD §1, step 5)."""

from __future__ import annotations

import math

import pytest
import torch

from ltmp_export.plan.scores import IMPORTANCE, METRIC
from ltmp_export.steps.prune.eager import take
from ltmp_export.steps.prune.step import Prune
from tests.makers.tokens import close, tokens

INF = math.inf


def test_what_is_above_stays_in_order() -> None:
    given = tokens(
        [[1.0], [2.0], [3.0], [4.0], [5.0]],
        importance=[INF, 0.3, 0.1, 0.4, 0.2],
        size=[1.0, 2.0, 3.0, 4.0, 5.0],
    )
    result, decision = take(Prune(0.15), given, None, {})
    assert close(result.x, [[0.0], [1.0], [3.0], [4.0]])
    assert result.size.tolist() == [1.0, 2.0, 4.0, 5.0]
    assert close(result.scores[IMPORTANCE], [INF, 0.3, 0.4, 0.2])
    assert result.scores[METRIC].tolist() == [[1.0], [2.0], [4.0], [5.0]]
    assert decision.chosen.tolist() == [True, True, False, True, True]
    assert decision.threshold == 0.15
    assert torch.equal(decision.score, given.scores[IMPORTANCE])


@pytest.mark.parametrize(
    ("threshold", "left"), [(0.25, 1), (0.24999999, 2), (0.25000003, 1), (0.0, 2)]
)
def test_the_threshold_itself_is_not_above_it(threshold: float, left: int) -> None:
    result, _ = take(Prune(threshold), tokens([[1.0], [1.0]], importance=[INF, 0.25]), None, {})
    assert len(result.x) == left


def test_an_importance_of_zero_is_not_above_zero() -> None:
    result, _ = take(Prune(0.0), tokens([[1.0]] * 3, importance=[INF, 0.0, 1e-30]), None, {})
    assert close(result.x, [[0.0], [2.0]])


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_the_class_token_always_stays(n: int) -> None:
    result, decision = take(Prune(1.0), tokens([[1.0]] * n), None, {})
    assert result.x.tolist() == [[0.0]]
    assert result.scores[IMPORTANCE].tolist() == [INF]
    assert decision.chosen.tolist() == [True] + [False] * (n - 1)


def test_nan_importance_is_not_above_anything() -> None:
    result, _ = take(Prune(0.0), tokens([[1.0]] * 2, importance=[INF, math.nan]), None, {})
    assert len(result.x) == 1
