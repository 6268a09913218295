"""How near a decision was, and where two sides decide differently."""

from __future__ import annotations

import math

import pytest
import torch

from ltmp_export.parity.decisions import STORIES, Disagreement, disagreements, leads, margin
from ltmp_export.plan.scores import METRIC
from ltmp_export.steps.matching import match
from ltmp_export.steps.merge.step import Merge
from ltmp_export.steps.prune.step import Prune
from ltmp_export.steps.recorded import KEEPS, MERGES, Words
from ltmp_export.steps.tokens import Choice, Decision, Matching, Tokens

INF = math.inf


def merge_decision(
    score: list[float], runner_up: list[float], threshold: float, chosen: list[bool]
) -> Matching:
    partner = torch.zeros(len(score), dtype=torch.long)
    return Matching(
        Merge(threshold),
        threshold,
        torch.tensor(score),
        torch.tensor(chosen),
        partner=partner,
        runner_up=torch.tensor(runner_up),
        similarity=torch.empty(0),
    )


def matched(metric: list[list[float]], threshold: float) -> Matching:
    """What a merge decides by these rows of the metric alone."""
    rows = torch.tensor(metric)
    nothing = torch.zeros(len(rows), 0)
    return match(Merge(threshold), Tokens(nothing, torch.ones(len(rows)), {METRIC: rows}))


def prune_decision(score: list[float], threshold: float) -> Decision:
    values = torch.tensor(score)
    return Decision(Prune(threshold), threshold, values, values > threshold)


@pytest.mark.parametrize(
    ("score", "threshold", "expected"),
    [
        ([INF], 0.5, INF),  # the class token alone: nothing to decide
        ([INF, 0.5], 0.25, 0.5),
        ([INF, 0.5, 0.1875], 0.25, 1 / 3),  # relative to the score itself
        ([INF, 0.25, 0.5], 0.25, 0.0),
        ([INF, 0.125, 0.25], 1.0, 3.0),
        ([INF, math.nan, 0.25], 0.5, math.nan),
    ],
)
def test_margin_of_a_pruning(score: list[float], threshold: float, expected: float) -> None:
    assert margin(prune_decision(score, threshold)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("score", "runner_up", "threshold", "chosen", "expected"),
    [
        ([-INF], [-INF], 0.5, [False], INF),
        ([-INF, 0.5], [-INF, 0.0], 0.25, [False, True], 0.25),
        ([-INF, 0.5], [-INF, 0.375], 0.25, [False, True], 0.125),  # the lead is less
        ([-INF, 0.5], [-INF, 0.5], 0.25, [False, True], 0.25),  # an exact tie is no near miss
        ([-INF, 0.5], [-INF, 0.4375], 0.75, [False, False], 0.25),  # a partner nobody takes
        ([-INF, 0.5], [-INF, -INF], 0.25, [False, True], 0.25),  # a single destination
        ([-INF, 0.5, 0.25], [-INF, 0.0, 0.0], 0.375, [False, True, False], 0.125),
        ([-INF, math.nan], [-INF, 0.0], 0.5, [False, False], math.nan),
    ],
)
def test_margin_of_a_merge(
    score: list[float],
    runner_up: list[float],
    threshold: float,
    chosen: list[bool],
    expected: float,
) -> None:
    decision = merge_decision(score, runner_up, threshold, chosen)
    assert margin(decision) == pytest.approx(expected, nan_ok=True)


def test_margin_of_one_token_is_infinite() -> None:
    assert margin(matched([[1.0] * 4], 0.5)) == INF


def test_an_importance_of_zero_is_no_division_by_zero() -> None:
    assert margin(prune_decision([INF, 0.0], 0.0)) == 0.0


def test_flips_of_a_pruning() -> None:
    decision = prune_decision([INF, 0.5, 0.125], 0.25)
    choice = Choice(torch.tensor([True, False, True]))
    found = list(disagreements(3, decision, choice))
    assert found == [
        Disagreement(3, "pruned", 1, 0.5, 0.25, 0.5, KEEPS),
        Disagreement(3, "kept", 2, 0.125, 0.25, 0.125, KEEPS),
    ]
    assert [d.margin for d in found] == [0.25, 0.125]
    assert [d.distance for d in found] == [0.5, 1.0]


def test_flips_of_a_merge_are_told_by_the_row_of_the_token() -> None:
    decision = merge_decision([-INF, 0.5, 0.75], [-INF, 0.0, 0.25], 0.625, [False, False, True])
    choice = Choice(torch.tensor([False, True, False]), torch.tensor([0, 0, 0]))
    found = list(disagreements(0, decision, choice))
    assert [(d.what, d.token, d.distance) for d in found] == [
        ("merged", 2, 0.125),
        ("not merged", 4, 0.125),
    ]


def test_a_merge_of_the_file_alone_needs_the_partner_too() -> None:
    decision = matched([[1.0, 0], [1, 0], [0.6, 0.8], [0, 1]], 0.8)  # the best is 0.8: not above
    choice = Choice(torch.tensor([False, True]), torch.tensor([0, 0]))
    found = list(disagreements(1, decision, choice))
    assert [d.what for d in found] == ["merged", "partner"]
    assert found[1].distance == pytest.approx(0.2)


def test_a_single_destination_has_no_lead() -> None:
    assert len(leads(matched([[1.0, 0], [1, 0], [0.6, 0.8]], 0.1))) == 0


def test_another_partner_is_as_far_as_its_similarity() -> None:
    decision = matched([[1.0, 0], [1, 0], [0.6, 0.8], [0, 1]], 0.5)
    choice = Choice(decision.chosen, torch.tensor([0, 0]))
    (found,) = disagreements(1, decision, choice)
    assert (found.what, found.token) == ("partner", 2)
    assert found.score == pytest.approx(0.8)
    assert found.threshold == pytest.approx(0.6)
    assert found.distance == pytest.approx(0.2)
    unmerged = Choice(torch.zeros(2, dtype=torch.bool), torch.tensor([0, 0]))
    assert [d.what for d in disagreements(1, decision, unmerged)] == ["not merged"]


@pytest.mark.parametrize(
    ("what", "words"),
    [(what, words) for words in (MERGES, KEEPS) for what in (*STORIES, *words.stories)],
)
def test_a_disagreement_tells_token_score_threshold_and_margin(what: str, words: Words) -> None:
    one = Disagreement(0, what, 17, 0.0123456789, 0.0123, 0.0123456789, words)
    told, story = one.describe(1e-6), {**STORIES, **words.stories}[what]
    assert told.startswith(f"token 17 {story}: ")
    assert "0.0123456789, " in told
    assert "margin 4.6e-05, rounding explains 1.2e-08" in told
