"""Matching and merging on small tables worked out by hand (METHOD §1, steps 2-4)."""

from __future__ import annotations

import math

import pytest
import torch

from ltmp_export.plan.scores import IMPORTANCE, METRIC
from ltmp_export.steps.matching import match, merge
from ltmp_export.steps.merge.step import Merge
from ltmp_export.steps.tokens import Matching, Tokens
from tests.makers.tokens import close, tokens

INF = math.inf


class TestMatch:
    def test_even_rows_look_for_the_most_similar_odd_row(self) -> None:
        # destinations: (1, 0) and (0, 1)
        metric = [[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.96, 0.28]]
        decision = match(Merge(0.9), tokens(metric))
        assert close(decision.score, [-INF, 0.8, 0.96])
        assert decision.partner[1:].tolist() == [1, 0]
        assert close(decision.runner_up, [-INF, 0.6, 0.28])
        assert decision.chosen.tolist() == [False, False, True]
        assert decision.threshold == 0.9

    def test_an_even_row_is_no_destination(self) -> None:
        decision = match(
            Merge(0.5), tokens([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        )
        assert close(decision.score, [-INF, 0.0, 0.0])
        assert decision.chosen.tolist() == [False, False, False]

    def test_the_class_token_never_merges(self) -> None:
        decision = match(Merge(0.0), tokens([[1.0, 0.0], [1.0, 0.0]]))
        assert close(decision.score, [-INF])
        assert decision.chosen.tolist() == [False]

    @pytest.mark.parametrize(
        ("destinations", "partner"),
        [([1.0, 1.0, 1.0], 0), ([0.5, 1.0, 1.0], 1), ([0.5, 0.25, 1.0], 2), ([1.0, 0.5, 1.0], 0)],
    )
    def test_a_tie_goes_to_the_lowest_index(self, destinations: list[float], partner: int) -> None:
        rows = [[1.0], [destinations[0]], [1.0], [destinations[1]], [1.0], [destinations[2]]]
        decision = match(Merge(0.5), tokens(rows))
        assert decision.partner[1:].tolist() == [partner, partner]
        assert close(decision.score[1:], [1.0, 1.0])

    def test_a_tie_is_its_own_runner_up(self) -> None:
        decision = match(Merge(0.5), tokens([[1.0], [0.75], [1.0], [0.75]]))
        assert close(decision.runner_up, [-INF, 0.75])

    def test_one_destination_has_no_runner_up(self) -> None:
        decision = match(Merge(0.5), tokens([[1.0], [0.75], [1.0]]))
        assert close(decision.runner_up, [-INF, -INF])

    @pytest.mark.parametrize(
        ("threshold", "chosen"), [(0.75, False), (0.74999994, True), (0.75000006, False)]
    )
    def test_the_threshold_itself_is_not_above_it(self, threshold: float, chosen: bool) -> None:
        decision = match(Merge(threshold), tokens([[1.0], [0.75], [1.0], [0.5]]))
        assert decision.chosen.tolist() == [False, chosen]

    def test_a_negative_similarity_is_not_above_zero(self) -> None:
        decision = match(Merge(0.0), tokens([[1.0], [-0.5], [1.0], [-1.0]]))
        assert close(decision.score, [-INF, -0.5])
        assert decision.partner[1] == 0
        assert decision.chosen.tolist() == [False, False]

    def test_one_token_has_nothing_to_match(self) -> None:
        decision = match(Merge(0.0), tokens([[1.0, 0.0]]))
        assert decision.score.tolist() == [-INF]
        assert decision.chosen.tolist() == [False]
        assert len(decision.partner) == len(decision.runner_up) == 1

    @pytest.mark.parametrize(("n", "sources"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (8, 4)])
    def test_there_is_one_row_for_each_source(self, n: int, sources: int) -> None:
        decision = match(Merge(0.5), tokens([[1.0]] * n))
        assert len(decision.score) == len(decision.partner) == len(decision.chosen) == sources
        assert int(decision.chosen.sum()) == sources - 1

    def test_a_nan_row_merges_nothing_of_itself(self) -> None:
        decision = match(Merge(0.0), tokens([[1.0], [1.0], [math.nan]]))
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
        result, decision = merge(Merge(0.5), tokens(metric), None)
        # rows 0 and 4, then 1+6, 3, 2+5
        assert close(result.x, [[0.0], [4.0], [3.5], [3.0], [3.5]])
        assert result.size.tolist() == [1.0, 1.0, 2.0, 1.0, 2.0]
        assert close(result.scores[METRIC], [metric[i] for i in (0, 4, 1, 3, 5)])
        assert decision.chosen.tolist() == [False, True, False, True]

    def test_several_sources_into_one_destination(self) -> None:
        given = tokens(
            [[1.0], [1.0], [1.0], [0.5], [1.0], [0.25], [1.0]],
            x=[[9.0, 0.0], [1.0, 2.0], [2.0, 4.0], [3.0, 6.0], [4.0, 8.0], [5.0, 1.0], [6.0, 3.0]],
            size=[1.0, 2.0, 3.0, 1.0, 1.0, 4.0, 2.0],
            importance=[INF, 0.1, 0.3, 0.5, 0.2, 0.4, 0.6],
        )
        result, _ = merge(Merge(0.9), given, None)
        # (1·2 + 2·3 + 4·1 + 6·2) / 8 and (2·2 + 4·3 + 8·1 + 3·2) / 8
        assert close(result.x, [[9.0, 0.0], [3.0, 3.75], [3.0, 6.0], [5.0, 1.0]])
        assert result.size.tolist() == [1.0, 8.0, 1.0, 4.0]
        assert close(result.scores[IMPORTANCE], [INF, 0.6, 0.5, 0.4])

    @pytest.mark.parametrize(
        ("source", "destination", "expected"), [(0.3, 0.1, 0.3), (0.1, 0.3, 0.3), (0.2, 0.2, 0.2)]
    )
    def test_importance_is_the_larger_one(
        self, source: float, destination: float, expected: float
    ) -> None:
        given = tokens([[1.0], [1.0], [1.0]], importance=[INF, destination, source])
        result, _ = merge(Merge(0.5), given, None)
        assert close(result.scores[IMPORTANCE], [INF, expected])

    def test_nothing_merged_still_reorders(self) -> None:
        given = tokens(
            [[1.0]] * 5, importance=[INF, 0.1, 0.2, 0.3, 0.4], size=[1.0, 2.0, 3.0, 4.0, 5.0]
        )
        result, decision = merge(Merge(1.0), given, None)
        assert close(result.x, [[0.0], [2.0], [4.0], [1.0], [3.0]])
        assert close(result.scores[IMPORTANCE], [INF, 0.2, 0.4, 0.1, 0.3])
        assert result.size.tolist() == [1.0, 3.0, 5.0, 2.0, 4.0]
        assert not decision.chosen.any()

    def test_one_token(self) -> None:
        result, decision = merge(Merge(0.0), tokens([[1.0]], x=[[5.0]], size=[3.0]), None)
        assert result.x.tolist() == [[5.0]]
        assert result.size.tolist() == [3.0]
        assert result.scores[IMPORTANCE].tolist() == [INF]
        assert result.scores[METRIC].tolist() == [[1.0]]
        assert isinstance(decision, Matching)

    def test_two_tokens_stay_two(self) -> None:
        result, _ = merge(Merge(0.0), tokens([[1.0], [1.0]], x=[[5.0], [6.0]]), None)
        assert result.x.tolist() == [[5.0], [6.0]]
        assert result.size.tolist() == [1.0, 1.0]

    @pytest.mark.parametrize(
        ("n", "left"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (65, 33)]
    )
    def test_everything_that_can_merges(self, n: int, left: int) -> None:
        """The class token and every odd row remain."""
        result, _ = merge(Merge(0.5), tokens([[1.0]] * n), None)
        assert len(result.x) == len(result.size) == len(result.scores[IMPORTANCE]) == left
        assert float(result.size.sum()) == n

    @pytest.mark.parametrize("n", range(1, 10))
    @pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6, 1.0])
    def test_weighted_sum_and_sizes_are_conserved(self, n: int, threshold: float) -> None:
        generator = torch.Generator().manual_seed(n)
        metric = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1)
        size = torch.randint(1, 5, (n,), generator=generator).float()
        given = Tokens(
            torch.randn(n, 2, generator=generator),
            size,
            {IMPORTANCE: torch.rand(n), METRIC: metric},
        )
        result, decision = merge(Merge(threshold), given, None)
        assert len(result.x) == n - int(decision.chosen.sum())
        assert float(result.size.sum()) == float(size.sum())
        before, after = (t.x * t.size[:, None] for t in (given, result))
        assert torch.allclose(before.sum(0), after.sum(0), atol=1e-5)
        assert torch.equal(result.x[0], given.x[0])

    def test_the_given_tokens_are_left_alone(self) -> None:
        given = tokens([[1.0]] * 5)
        merge(Merge(0.5), given, None)
        assert close(given.x, [[0.0], [1.0], [2.0], [3.0], [4.0]])
        assert given.size.tolist() == [1.0] * 5
        assert close(given.scores[IMPORTANCE], [INF, 0.1, 0.1, 0.1, 0.1])
        assert given.scores[METRIC].tolist() == [[1.0]] * 5
