"""The reference's own report of how near each decision was, and its check against timm."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ltmp_export import families
from ltmp_export.errors import InputError
from ltmp_export.plan import dense_plan
from ltmp_export.reference import Reference, attention, margin, verify_against_timm
from ltmp_export.tokens import MergeDecision, PruneDecision, match
from tests import random_vits, tolerances

INF = math.inf


def merge_decision(
    score: list[float], runner_up: list[float], threshold: float, chosen: list[bool]
) -> MergeDecision:
    partner = torch.zeros(len(score), dtype=torch.long)
    return MergeDecision(
        threshold,
        torch.tensor(score),
        partner,
        torch.tensor(runner_up),
        torch.tensor(chosen),
        torch.empty(0),
    )


def prune_decision(score: list[float], threshold: float) -> PruneDecision:
    values = torch.tensor(score)
    return PruneDecision(threshold, values, values > threshold)


@pytest.mark.parametrize(
    ("score", "threshold", "expected"),
    [
        ([INF], 0.5, INF),  # the class token alone: nothing to decide
        ([INF, 0.5], 0.25, 0.5),
        ([INF, 0.5, 0.125], 0.25, 0.25),  # relative to the largest score
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
        ([-INF, 0.5], [-INF, 0.0], 0.25, [False, True], 0.5),
        ([-INF, 0.5], [-INF, 0.375], 0.25, [False, True], 0.25),  # the lead is less
        ([-INF, 0.5], [-INF, 0.5], 0.25, [False, True], 0.5),  # an exact tie is no near miss
        ([-INF, 0.5], [-INF, 0.4375], 0.75, [False, False], 0.5),  # a partner nobody takes
        ([-INF, 0.5], [-INF, -INF], 0.25, [False, True], 0.5),  # a single destination
        ([-INF, 0.5, 0.25], [-INF, 0.0, 0.0], 0.375, [False, True, False], 0.25),
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
    assert margin(match(torch.ones(1, 4), 0.5)) == INF


@pytest.mark.parametrize("family", families.names())
def test_trace(family: str) -> None:
    """Counts, decisions and margins of every block fit together."""
    model, vit = random_vits.build(random_vits.EVEN)
    images = random_vits.images(vit, random_vits.EVEN.seed)
    plan = random_vits.middle_plan(model, images, family, random_vits.EVEN.seed)
    trace = Reference(model, plan).run(images[0])
    assert trace.logits.shape == (vit.classes,)
    assert len(trace.counts) == len(trace.decisions) == len(trace.margins()) == vit.depth
    tokens = vit.patches + 1
    for count, decisions, near in zip(trace.counts, trace.decisions, trace.margins(), strict=True):
        for decision in decisions:
            chosen = int(decision.chosen.sum())
            tokens = tokens - chosen if isinstance(decision, MergeDecision) else chosen
        assert count == tokens
        assert near == min(map(margin, decisions))


def test_a_block_without_steps_has_no_margin() -> None:
    model, vit = random_vits.build(random_vits.EVEN)
    trace = Reference(model, dense_plan(vit.depth)).run(random_vits.images(vit, 1)[0])
    assert trace.margins() == (INF,) * vit.depth


class TestAttention:
    @staticmethod
    def run(size: list[float]) -> tuple[Tensor, Tensor, Tensor]:
        model, vit = random_vits.build(random_vits.ODD)
        x = torch.randn(len(size), vit.width, generator=torch.Generator().manual_seed(0))
        attended, importance, metric = attention(model.blocks[0].attn, x, torch.tensor(size))
        return attended, importance, metric

    def test_shapes_and_ranges(self) -> None:
        attended, importance, metric = self.run([1.0, 2.0, 1.0, 5.0])
        assert attended.shape == (4, 48)
        assert metric.shape == (4, 24)
        assert importance[0] == INF
        assert ((importance[1:] > 0) & (importance[1:] < 1)).all()
        assert torch.allclose(metric.norm(dim=1), torch.ones(4))

    def test_a_larger_token_draws_more_attention(self) -> None:
        small, large = (self.run([1.0, 1.0, size, 1.0])[1] for size in (1.0, 4.0))
        assert large[2] > small[2]
        assert (large[[1, 3]] < small[[1, 3]]).all()

    def test_size_counts_a_token_as_often(self) -> None:
        """A token of size 2 is attended to as two equal tokens are."""
        model, vit = random_vits.build(random_vits.ODD)
        x = torch.randn(3, vit.width, generator=torch.Generator().manual_seed(0))
        attn = model.blocks[0].attn
        merged, _, _ = attention(attn, x, torch.tensor([1.0, 1.0, 2.0]))
        double, _, _ = attention(attn, x[[0, 1, 2, 2]], torch.ones(4))
        assert torch.allclose(merged, double[:3], atol=tolerances.ATTENTION)


class TestVerifyAgainstTimm:
    def test_a_plain_model_passes(self) -> None:
        model, vit = random_vits.build(random_vits.EVEN)
        verify_against_timm(model, vit.input_size, vit.name)

    def test_a_forward_that_does_more_is_refused(self) -> None:
        model, vit = random_vits.build(random_vits.EVEN)
        model.register_forward_hook(lambda module, inputs, output: output + 0.01)
        with pytest.raises(InputError, match=r"even_tokens differs .* by 0\.01"):
            verify_against_timm(model, vit.input_size, vit.name)

    def test_nan_is_refused(self) -> None:
        model, vit = random_vits.build(random_vits.EVEN)
        model.state_dict()["head.bias"][0] = math.nan
        with pytest.raises(InputError, match="differs"):
            verify_against_timm(model, vit.input_size, vit.name)
