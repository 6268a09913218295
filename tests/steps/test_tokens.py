"""The token algebra on small tables worked out by hand (METHOD §1, steps 2-5)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ltmp_export.plan.plan import Merge, Prune
from ltmp_export.steps.eager import MergeDecision, PruneDecision, Tokens, apply, match, merge, prune
from tests import tolerances

INF = math.inf


def tokens(
    metric: list[list[float]],
    *,
    x: list[list[float]] | None = None,
    size: list[float] | None = None,
    importance: list[float] | None = None,
) -> Tokens:
    """Tokens with the given columns; x counts from 0, sizes are 1, importances 0.1 by default."""
    n = len(metric)
    return Tokens(
        x=torch.tensor(x or [[float(i)] for i in range(n)]),
        size=torch.tensor(size or [1.0] * n),
        importance=torch.tensor(importance or [INF, *[0.1] * (n - 1)]),
        metric=torch.tensor(metric),
    )


def close(got: Tensor, expected: list[float] | list[list[float]]) -> bool:
    wanted = torch.tensor(expected)
    return got.shape == wanted.shape and torch.allclose(got, wanted, rtol=0, atol=tolerances.TOKENS)


class TestMatch:
    def test_even_rows_look_for_the_most_similar_odd_row(self) -> None:
        # destinations: (1, 0) and (0, 1)
        metric = [[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.96, 0.28]]
        decision = match(torch.tensor(metric), Merge(0.9))
        assert close(decision.score, [-INF, 0.8, 0.96])
        assert decision.partner[1:].tolist() == [1, 0]
        assert close(decision.runner_up, [-INF, 0.6, 0.28])
        assert decision.chosen.tolist() == [False, False, True]
        assert decision.threshold == 0.9

    def test_an_even_row_is_no_destination(self) -> None:
        decision = match(
            torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), Merge(0.5)
        )
        assert close(decision.score, [-INF, 0.0, 0.0])
        assert decision.chosen.tolist() == [False, False, False]

    def test_the_class_token_never_merges(self) -> None:
        decision = match(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), Merge(0.0))
        assert close(decision.score, [-INF])
        assert decision.chosen.tolist() == [False]

    @pytest.mark.parametrize(
        ("destinations", "partner"),
        [([1.0, 1.0, 1.0], 0), ([0.5, 1.0, 1.0], 1), ([0.5, 0.25, 1.0], 2), ([1.0, 0.5, 1.0], 0)],
    )
    def test_a_tie_goes_to_the_lowest_index(self, destinations: list[float], partner: int) -> None:
        rows = [[1.0], [destinations[0]], [1.0], [destinations[1]], [1.0], [destinations[2]]]
        decision = match(torch.tensor(rows), Merge(0.5))
        assert decision.partner[1:].tolist() == [partner, partner]
        assert close(decision.score[1:], [1.0, 1.0])

    def test_a_tie_is_its_own_runner_up(self) -> None:
        decision = match(torch.tensor([[1.0], [0.75], [1.0], [0.75]]), Merge(0.5))
        assert close(decision.runner_up, [-INF, 0.75])

    def test_one_destination_has_no_runner_up(self) -> None:
        decision = match(torch.tensor([[1.0], [0.75], [1.0]]), Merge(0.5))
        assert close(decision.runner_up, [-INF, -INF])

    @pytest.mark.parametrize(
        ("threshold", "chosen"), [(0.75, False), (0.74999994, True), (0.75000006, False)]
    )
    def test_the_threshold_itself_is_not_above_it(self, threshold: float, chosen: bool) -> None:
        decision = match(torch.tensor([[1.0], [0.75], [1.0], [0.5]]), Merge(threshold))
        assert decision.chosen.tolist() == [False, chosen]

    def test_a_negative_similarity_is_not_above_zero(self) -> None:
        decision = match(torch.tensor([[1.0], [-0.5], [1.0], [-1.0]]), Merge(0.0))
        assert close(decision.score, [-INF, -0.5])
        assert decision.partner[1] == 0
        assert decision.chosen.tolist() == [False, False]

    def test_one_token_has_nothing_to_match(self) -> None:
        decision = match(torch.tensor([[1.0, 0.0]]), Merge(0.0))
        assert decision.score.tolist() == [-INF]
        assert decision.chosen.tolist() == [False]
        assert len(decision.partner) == len(decision.runner_up) == 1

    @pytest.mark.parametrize(("n", "sources"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (8, 4)])
    def test_there_is_one_row_for_each_source(self, n: int, sources: int) -> None:
        decision = match(torch.ones(n, 1), Merge(0.5))
        assert len(decision.score) == len(decision.partner) == len(decision.chosen) == sources
        assert int(decision.chosen.sum()) == sources - 1

    def test_a_nan_row_merges_nothing_of_itself(self) -> None:
        decision = match(torch.tensor([[1.0], [1.0], [math.nan]]), Merge(0.0))
        assert decision.chosen.tolist() == [False, False]


class TestMerge:
    def test_unmerged_sources_come_first_then_all_destinations(self) -> None:
        # similar pairs: 2 with 5, 6 with 1; row 4 is alone
        metric = [
            [1.0, 0.0, 0.0],
            [0.0, 1.0, 0.0],
            [0.0, 0.0, 1.0],
            [1.0, 0.0, 0.0],
            [0.0, -1.0, 0.0],
            [0.0, 0.0, 1.0],
            [0.0, 1.0, 0.0],
        ]
        result, decision = merge(tokens(metric), Merge(0.5))
        # rows 0 and 4, then 1+6, 3, 2+5
        assert close(result.x, [[0.0], [4.0], [3.5], [3.0], [3.5]])
        assert result.size.tolist() == [1.0, 1.0, 2.0, 1.0, 2.0]
        assert close(result.metric, [metric[i] for i in (0, 4, 1, 3, 5)])
        assert decision.chosen.tolist() == [False, True, False, True]

    def test_several_sources_into_one_destination(self) -> None:
        given = tokens(
            [[1.0], [1.0], [1.0], [0.5], [1.0], [0.25], [1.0]],
            x=[[9.0, 0.0], [1.0, 2.0], [2.0, 4.0], [3.0, 6.0], [4.0, 8.0], [5.0, 1.0], [6.0, 3.0]],
            size=[1.0, 2.0, 3.0, 1.0, 1.0, 4.0, 2.0],
            importance=[INF, 0.1, 0.3, 0.5, 0.2, 0.4, 0.6],
        )
        result, _ = merge(given, Merge(0.9))
        # (1·2 + 2·3 + 4·1 + 6·2) / 8 and (2·2 + 4·3 + 8·1 + 3·2) / 8
        assert close(result.x, [[9.0, 0.0], [3.0, 3.75], [3.0, 6.0], [5.0, 1.0]])
        assert result.size.tolist() == [1.0, 8.0, 1.0, 4.0]
        assert close(result.importance, [INF, 0.6, 0.5, 0.4])

    @pytest.mark.parametrize(
        ("source", "destination", "expected"), [(0.3, 0.1, 0.3), (0.1, 0.3, 0.3), (0.2, 0.2, 0.2)]
    )
    def test_importance_is_the_larger_one(
        self, source: float, destination: float, expected: float
    ) -> None:
        given = tokens([[1.0], [1.0], [1.0]], importance=[INF, destination, source])
        result, _ = merge(given, Merge(0.5))
        assert close(result.importance, [INF, expected])

    def test_nothing_merged_still_reorders(self) -> None:
        given = tokens(
            [[1.0]] * 5, importance=[INF, 0.1, 0.2, 0.3, 0.4], size=[1.0, 2.0, 3.0, 4.0, 5.0]
        )
        result, decision = merge(given, Merge(1.0))
        assert close(result.x, [[0.0], [2.0], [4.0], [1.0], [3.0]])
        assert close(result.importance, [INF, 0.2, 0.4, 0.1, 0.3])
        assert result.size.tolist() == [1.0, 3.0, 5.0, 2.0, 4.0]
        assert not decision.chosen.any()

    def test_one_token(self) -> None:
        result, decision = merge(tokens([[1.0]], x=[[5.0]], size=[3.0]), Merge(0.0))
        assert result.x.tolist() == [[5.0]]
        assert result.size.tolist() == [3.0]
        assert result.importance.tolist() == [INF]
        assert result.metric.tolist() == [[1.0]]
        assert isinstance(decision, MergeDecision)

    def test_two_tokens_stay_two(self) -> None:
        result, _ = merge(tokens([[1.0], [1.0]], x=[[5.0], [6.0]]), Merge(0.0))
        assert result.x.tolist() == [[5.0], [6.0]]
        assert result.size.tolist() == [1.0, 1.0]

    @pytest.mark.parametrize(
        ("n", "left"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (65, 33)]
    )
    def test_everything_that_can_merges(self, n: int, left: int) -> None:
        """The class token and every odd row remain."""
        result, _ = merge(tokens([[1.0]] * n), Merge(0.5))
        assert len(result.x) == len(result.size) == len(result.importance) == left
        assert float(result.size.sum()) == n

    @pytest.mark.parametrize("n", range(1, 10))
    @pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6, 1.0])
    def test_weighted_sum_and_sizes_are_conserved(self, n: int, threshold: float) -> None:
        generator = torch.Generator().manual_seed(n)
        metric = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1)
        size = torch.randint(1, 5, (n,), generator=generator).float()
        given = Tokens(torch.randn(n, 2, generator=generator), size, torch.rand(n), metric)
        result, decision = merge(given, Merge(threshold))
        assert len(result.x) == n - int(decision.chosen.sum())
        assert float(result.size.sum()) == float(size.sum())
        before, after = (t.x * t.size[:, None] for t in (given, result))
        assert torch.allclose(before.sum(0), after.sum(0), atol=1e-5)
        assert torch.equal(result.x[0], given.x[0])

    def test_the_given_tokens_are_left_alone(self) -> None:
        given = tokens([[1.0]] * 5)
        merge(given, Merge(0.5))
        assert close(given.x, [[0.0], [1.0], [2.0], [3.0], [4.0]])
        assert given.size.tolist() == [1.0] * 5
        assert close(given.importance, [INF, 0.1, 0.1, 0.1, 0.1])
        assert given.metric.tolist() == [[1.0]] * 5


class TestPrune:
    def test_what_is_above_stays_in_order(self) -> None:
        given = tokens(
            [[1.0], [2.0], [3.0], [4.0], [5.0]],
            importance=[INF, 0.3, 0.1, 0.4, 0.2],
            size=[1.0, 2.0, 3.0, 4.0, 5.0],
        )
        result, decision = prune(given, Prune(0.15))
        assert close(result.x, [[0.0], [1.0], [3.0], [4.0]])
        assert result.size.tolist() == [1.0, 2.0, 4.0, 5.0]
        assert close(result.importance, [INF, 0.3, 0.4, 0.2])
        assert result.metric.tolist() == [[1.0], [2.0], [4.0], [5.0]]
        assert decision.chosen.tolist() == [True, True, False, True, True]
        assert decision.threshold == 0.15
        assert torch.equal(decision.score, given.importance)

    @pytest.mark.parametrize(
        ("threshold", "left"), [(0.25, 1), (0.24999999, 2), (0.25000003, 1), (0.0, 2)]
    )
    def test_the_threshold_itself_is_not_above_it(self, threshold: float, left: int) -> None:
        result, _ = prune(tokens([[1.0], [1.0]], importance=[INF, 0.25]), Prune(threshold))
        assert len(result.x) == left

    def test_an_importance_of_zero_is_not_above_zero(self) -> None:
        result, _ = prune(tokens([[1.0]] * 3, importance=[INF, 0.0, 1e-30]), Prune(0.0))
        assert close(result.x, [[0.0], [2.0]])

    @pytest.mark.parametrize("n", [1, 2, 3, 8])
    def test_the_class_token_always_stays(self, n: int) -> None:
        result, decision = prune(tokens([[1.0]] * n), Prune(1.0))
        assert result.x.tolist() == [[0.0]]
        assert result.importance.tolist() == [INF]
        assert decision.chosen.tolist() == [True] + [False] * (n - 1)

    def test_nan_importance_is_not_above_anything(self) -> None:
        result, _ = prune(tokens([[1.0]] * 2, importance=[INF, math.nan]), Prune(0.0))
        assert len(result.x) == 1


def test_the_order_of_the_steps_matters() -> None:
    """Merging first lets a maximum save a token; pruning first changes the even/odd split."""
    given = tokens(
        [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]],
        importance=[INF, 0.1, 0.5, 0.4, 0.3],
    )
    merged_first, _ = apply(Prune(0.2), apply(Merge(0.5), given)[0])
    # rows 2 and 4 go into 1, whose importance becomes 0.5; row 3 stays on its own
    assert close(merged_first.x, [[0.0], [7 / 3], [3.0]])
    assert merged_first.size.tolist() == [1.0, 3.0, 1.0]

    pruned_first, _ = apply(Merge(0.5), apply(Prune(0.2), given)[0])
    # 0, 2, 3, 4 are left: source 3 is unlike 2 and 4 and stays
    assert close(pruned_first.x, [[0.0], [3.0], [2.0], [4.0]])
    assert pruned_first.size.tolist() == [1.0, 1.0, 1.0, 1.0]


def test_apply_takes_the_step_it_is_given() -> None:
    given = tokens([[1.0]] * 3)
    assert isinstance(apply(Merge(0.5), given)[1], MergeDecision)
    assert isinstance(apply(Prune(0.5), given)[1], PruneDecision)
    assert apply(Merge(0.25), given)[1].threshold == 0.25
    assert apply(Prune(0.75), given)[1].threshold == 0.75
