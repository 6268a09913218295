"""Medoids on small tables worked out by hand (METHOD §1)."""

from __future__ import annotations

import math

import pytest
import torch

from ltmp_export.plan.plan import Plan
from ltmp_export.plan.scores import IMPORTANCE
from ltmp_export.steps.medoids.eager import Clustering, take
from ltmp_export.steps.medoids.step import Medoids
from ltmp_export.steps.tokens import Choice, Tokens

INF = math.inf


def line(places: list[float], received: list[float]) -> Tokens:
    """A class token, and patches on a line."""
    x = torch.tensor([[9.0], *([place] for place in places)])
    return Tokens(x, torch.ones(len(x)), {IMPORTANCE: torch.tensor([INF, *received])})


def stay(step: Medoids, tokens: Tokens, forced: Choice | None = None) -> list[int]:
    left, decision = take(step, tokens, forced, {})
    assert isinstance(decision, Clustering)
    assert left.x[1:, 0].tolist() == tokens.x[1:, 0][decision.medoids].tolist()
    return decision.medoids.tolist()


def test_the_middle_of_clusters_in_the_order_they_began() -> None:
    """Sums of distances 26, 23, 21, 31, 38 of 0, 1, 2, 10, 13; equal weights but for the start."""
    tokens = line([0.0, 1.0, 2.0, 10.0, 13.0], [1.0, 1.0, 1.0, 1.0, 1.01])
    assert stay(Medoids(2, 1), tokens) == [3, 2]


def test_a_small_weight_is_cheap() -> None:
    tokens = line([0.0, 1.0, 2.0, 10.0, 13.0], [0.1, 1.0, 1.0, 1.0, 1.01])
    assert stay(Medoids(2, 1), tokens) == [3, 0]


def test_equal_ones_take_the_first() -> None:
    """Distances to both centres, costs within a cluster, and weights at the start."""
    tokens = line([0.0, 4.0, 2.0], [1.0, 1.0, 1.0])
    _, decision = take(Medoids(2, 1), tokens, None, {})
    assert decision.partners is not None
    assert decision.partners.index[4:].tolist() == [0, 1, 0]
    assert stay(Medoids(2, 1), tokens) == [2, 1]


def test_the_same_token_twice_leaves_a_cluster_empty() -> None:
    """The first takes all, and the other gets the first row."""
    tokens = line([5.0, 7.0, 1.0, 1.0], [0.5, 0.4, 0.9, 0.8])
    assert stay(Medoids(2, 1), tokens) == [0, 0]


def test_what_somebody_else_chose_is_carried_out() -> None:
    """Of another image: clusters around others, in each round."""
    step = Medoids(2, 2)
    own = line([0.0, 1.0, 2.0, 10.0, 13.0], [1.0, 1.0, 1.0, 1.0, 1.01])
    other = line([13.0, 0.0, 1.0, 2.0, 10.0], [1.0, 1.01, 1.0, 1.0, 1.0])
    _, decision = take(step, other, None, {})
    assert decision.partners is not None
    moved = decision.partners.moved
    choice = Choice(decision.chosen, decision.partners.index, decision.order, moved)
    assert stay(step, own, choice) == stay(step, other)
    _, replayed = take(step, own, choice, {})
    assert not torch.equal(replayed.chosen, decision.chosen)


@pytest.mark.parametrize(("tokens", "rounds"), [(0, 3), (4, 3), (3, 0), (3, 1000)])
def test_what_cannot_be(tokens: int, rounds: int) -> None:
    assert not Medoids(tokens, rounds).possible(5, 1)


@pytest.mark.parametrize("block", [0, 2])
def test_nothing_in_front_offers_its_scores(block: int) -> None:
    steps = ((), (Medoids(3, 1),), ())
    plan = Plan("kmedoids", steps if block else ((),) * 3, {block: Medoids(3, 1)})
    with pytest.raises(ValueError, match=f"nothing offers block {block} what Medoids"):
        plan.require_possible(9, 1)
