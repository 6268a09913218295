"""What the reference tells of an image, its attention, and its check against timm."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ltmp_export import families
from ltmp_export.errors import InputError
from ltmp_export.plan.scores import IMPORTANCE, METRIC
from ltmp_export.reference import Reference, attention, verify_against_timm
from ltmp_export.steps.tokens import Choice, Matching
from tests import tolerances
from tests.makers import random_vits


@pytest.mark.parametrize("family", families.learned())
def test_trace(family: str) -> None:
    """Counts, decisions, tokens and sizes of every block fit together."""
    model, vit = random_vits.build(random_vits.EVEN)
    images = random_vits.images(vit, random_vits.EVEN.seed)
    plan = random_vits.middle_plan(model, images, family, random_vits.EVEN.seed)
    trace = Reference(model, plan).run(images[0])
    assert trace.logits.shape == (vit.classes,)
    assert trace.embedded.shape == (vit.patches + 1, vit.width)
    assert len(trace.tokens) == len(trace.sizes) == len(trace.decisions) == vit.depth
    tokens = vit.patches + 1
    for block, (count, decisions) in enumerate(zip(trace.counts, trace.decisions, strict=True)):
        for decision in decisions:
            chosen = int(decision.chosen.sum())
            tokens = tokens - chosen if isinstance(decision, Matching) else chosen
        assert count == tokens
        assert trace.tokens[block].shape == (count, vit.width)
        assert trace.sizes[block].shape == (count,)


def test_decisions_forced_on_the_first_blocks_only_leave_the_others_free() -> None:
    model, vit = random_vits.build(random_vits.EVEN)
    images = random_vits.images(vit, random_vits.EVEN.seed)
    plan = random_vits.middle_plan(model, images, "ltp", random_vits.EVEN.seed)
    everything = [(Choice(torch.ones(vit.patches + 1, dtype=torch.bool)),)]
    trace = Reference(model, plan).run(images[0], everything)
    assert trace.counts[0] == vit.patches + 1
    assert trace.counts[1] == int(trace.decisions[1][0].chosen.sum()) < trace.counts[0]
    assert not trace.decisions[0][0].chosen.all()


class TestAttention:
    @staticmethod
    def run(size: list[float]) -> tuple[Tensor, Tensor, Tensor]:
        model, vit = random_vits.build(random_vits.ODD)
        x = torch.randn(len(size), vit.width, generator=torch.Generator().manual_seed(0))
        attended, scores = attention(model.blocks[0].attn, x, torch.tensor(size))
        return attended, scores[IMPORTANCE], scores[METRIC]

    def test_shapes_and_ranges(self) -> None:
        attended, importance, metric = self.run([1.0, 2.0, 1.0, 5.0])
        assert attended.shape == (4, 48)
        assert metric.shape == (4, 24)
        assert importance[0] == math.inf
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
        merged, _ = attention(attn, x, torch.tensor([1.0, 1.0, 2.0]))
        double, _ = attention(attn, x[[0, 1, 2, 2]], torch.ones(4))
        assert torch.allclose(merged, double[:3], atol=tolerances.ATTENTION)


class TestVerifyAgainstTimm:
    def test_a_plain_model_passes(self) -> None:
        model, vit = random_vits.build(random_vits.EVEN)
        verify_against_timm(model, vit)

    def test_a_forward_that_does_more_is_refused(self) -> None:
        model, vit = random_vits.build(random_vits.EVEN)
        model.register_forward_hook(lambda module, inputs, output: output + 0.01)
        with pytest.raises(InputError, match=r"even_tokens differs .* by 0\.01"):
            verify_against_timm(model, vit)

    def test_nan_is_refused(self) -> None:
        model, vit = random_vits.build(random_vits.EVEN)
        model.state_dict()["head.bias"][0] = math.nan
        with pytest.raises(InputError, match="differs"):
            verify_against_timm(model, vit)
