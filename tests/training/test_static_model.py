"""A ViT under a static plan in batches: what the reference computes, and what learns from it."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ltmp_export.errors import InputError
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.reference import Reference
from ltmp_export.steps.batches import Batch, take
from ltmp_export.steps.fuse.step import Fuse
from ltmp_export.steps.mergence import eager
from ltmp_export.steps.mergence.step import WEIGHTINGS, Mergence
from ltmp_export.steps.tokens import Tokens
from ltmp_export.training.static_model import StaticVit
from tests.makers import random_vits
from tests.makers.small_masks import masks

LOGITS = {torch.float32: 1e-5, torch.float64: 1e-9}  # measured: 4e-6, 6e-15


def merging(weights: str) -> Plan:
    steps = ((Mergence(20, weights),), (), (Mergence(9, weights),), (Mergence(1, weights),))
    return Plan("multiscale_mergence", steps)


def like_reference(plan: Plan, case: random_vits.Case, dtype: torch.dtype) -> StaticVit:
    """The model, whose logits and counts are those of the reference."""
    model, geometry = random_vits.build(case)
    images = random_vits.images(geometry, case.seed)
    static = StaticVit(copy.deepcopy(model).to(dtype), plan).to(dtype).eval()
    reference = Reference(model, plan, dtype)
    with torch.no_grad():
        logits, counts, *_ = static(images.to(dtype))
    for image, row, tokens in zip(images, logits, counts, strict=True):
        wanted = reference.run(image)
        torch.testing.assert_close(row, wanted.logits, rtol=0, atol=LOGITS[dtype])
        assert tokens.tolist() == list(wanted.counts)
    return static


class TestMergence:
    @pytest.mark.parametrize("weights", WEIGHTINGS)
    @pytest.mark.parametrize("dtype", LOGITS)
    def test_is_what_the_reference_computes(self, weights: str, dtype: torch.dtype) -> None:
        like_reference(merging(weights), random_vits.DEEP, dtype)

    @pytest.mark.parametrize("weights", WEIGHTINGS)
    def test_ties_and_what_tokens_own(self, weights: str) -> None:
        """Scores of three values, vectors of four directions; then what each token owns weighs."""
        generator = torch.Generator().manual_seed(2)
        kinds = torch.randint(0, 4, (3, 14), generator=generator)
        score = torch.randint(1, 4, (3, 14), generator=generator) / 4.0
        score[:, 0] = torch.inf
        batch = Batch(2 * torch.eye(4)[kinds], torch.ones(3, 14), {CLASS_ATTENTION: score})
        alone = [Tokens(x, s, {CLASS_ATTENTION: score[i]})
                 for i, (x, s) in enumerate(zip(batch.x, batch.size, strict=True))]  # fmt: skip
        for keep in (8, 3):
            batch = take(Mergence(keep, weights), batch, {})
            alone = [eager.take(Mergence(keep, weights), one, None, {})[0] for one in alone]
            for image, one in enumerate(alone):
                torch.testing.assert_close(batch.x[image], one.x)
                assert batch.patches_owned()[image].tolist() == one.patches_owned().tolist()
            assert batch.patches_owned()[:, 1:].sum(1).tolist() == [13.0] * 3
            score = score[:, : keep + 1]
            other = torch.randn((3, keep + 1, 4), generator=generator)  # no ties by rounding alone
            batch = replace(batch, x=other, scores={CLASS_ATTENTION: score})
            alone = [replace(one, x=other[i], scores={CLASS_ATTENTION: score[i]})
                     for i, one in enumerate(alone)]  # fmt: skip

    def test_patches_that_merge_away_learn(self) -> None:
        """Each patch has a share in what stays: its position has a gradient."""
        static = learned(merging("uniform"))
        assert bool((static.vit.pos_embed.grad.abs().sum(2) > 0).all())

    def test_importance_teaches_attention(self) -> None:
        """Where it weighs the mean, the scores learn; who is chosen by them has no gradient."""
        x = torch.randn((2, 8, 4), generator=torch.Generator().manual_seed(0))
        for weights, learns in (("importance", True), ("uniform", False)):
            score = torch.linspace(0.1, 0.8, 8).expand(2, -1).clone().requires_grad_()
            batch = Batch(x.clone().requires_grad_(), torch.ones(2, 8), {CLASS_ATTENTION: score})
            torch.autograd.backward(take(Mergence(3, weights), batch, {}).x.square().sum())
            assert (score.grad is not None) is learns


@pytest.mark.parametrize("restore", [False, True], ids=["merged", "restored"])
@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
class TestMergeMask:
    @pytest.mark.parametrize("dtype", LOGITS)
    def test_is_what_the_reference_computes(
        self, hard: bool, restore: bool, dtype: torch.dtype
    ) -> None:
        static = like_reference(masks(hard, restore), random_vits.DEEP, dtype)
        assert set(static.own()) == set(static.plan.parameters)

    def test_average_leaves_out_targets_that_are_no_token(self, hard: bool, restore: bool) -> None:
        case = replace(random_vits.DEEP, kwargs=random_vits.DEEP.kwargs | {"global_pool": "avg"})
        like_reference(masks(hard, restore), case, torch.float32)

    @pytest.mark.parametrize("step", [0.0, 0.5])
    def test_all_of_its_own_learns(self, hard: bool, restore: bool, step: float) -> None:
        """From where training starts, too. Centers cancel: their difference is centered again.

        Nothing classifies patches behind the last block, so its masks matter to no one.
        """
        static = learned(masks(hard, restore, step))
        gradients = {name: value.grad for name, value in static.own().items()}
        for name, grad in gradients.items():
            assert grad is not None
            idle = name.endswith("center") or name.startswith("blocks.3.")
            assert (float(grad.abs().max()) > 1e-6) is not idle, name
        first = gradients["ltm.mask0"]
        assert first is not None
        if step:  # of hard masks weights that are not taken, too
            assert int((first.abs() > 1e-12).sum()) > 4 * 36


def learned(plan: Plan) -> StaticVit:
    """With the gradients of one batch."""
    model, geometry = random_vits.build(random_vits.DEEP)
    static = StaticVit(model, plan).double().requires_grad_(True)
    logits: Tensor = static(random_vits.images(geometry, 0).double()).logits
    torch.autograd.backward(torch.nn.functional.cross_entropy(logits, torch.arange(5)))
    return static


def test_a_step_without_the_face_is_refused() -> None:
    model, _ = random_vits.build(random_vits.DEEP)
    plan = Plan("evit", ((Fuse(0.5),), (), (), ()))
    with pytest.raises(InputError, match="family evit cannot be trained: the step .* no face 'ba"):
        StaticVit(model, plan)


def test_half_precision_leaves_decisions_in_full() -> None:
    """Under autocast the products are rounded; scores and vectors that decide are not."""
    seen: list[torch.dtype] = []
    model, geometry = random_vits.build(random_vits.DEEP)
    static = StaticVit(model, merging("uniform"))
    plain = static(random_vits.images(geometry, 0)).logits
    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        original = take

        def watched(step: Mergence, tokens: Batch, weights: dict[str, Tensor]) -> Batch:
            seen.extend([tokens.x.dtype, tokens.scores[CLASS_ATTENTION].dtype])
            return original(step, tokens, weights)

        patch.setattr("ltmp_export.steps.batches.take", watched)
        rounded = static(random_vits.images(geometry, 0)).logits
    assert set(seen) == {torch.float32}
    assert not torch.equal(plain, rounded.float())
