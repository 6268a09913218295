"""The masked forms: the aligned one decides as the deployed model, the published one as published.

Golden outputs of both come from the authors' own models (fixtures/README.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.plan.plan import Plan
from ltmp_export.reference import Reference
from ltmp_export.training.forms import ALIGNED, FORMS, PUBLISHED, Form, candidates
from ltmp_export.training.masked import Masked, gate, merge, prune, similarities
from ltmp_export.training.model import MaskedVit
from tests import tolerances
from tests.makers import random_vits
from tests.makers.exported import Exported, Result, chunks
from tests.makers.random_vits import Case

FAMILIES = families.learned()
INF = float("inf")


def masked_vit(model: Any, plan: Plan, form: Form = ALIGNED) -> MaskedVit:
    return MaskedVit(model, families.load(plan.family), plan.thresholds(), form).eval()


def run(model: MaskedVit, images: Tensor, batch: int, grad: bool) -> tuple[Tensor, Tensor]:
    """Logits and counts; with gradients no row is ever left out."""
    with torch.set_grad_enabled(grad):
        parts = [model(part) for part in chunks(images, batch)]
    return torch.cat([p.logits.detach() for p in parts]), torch.cat([p.counts for p in parts])


FILES: dict[str, Result] = {}  # what the file of each family gives of the digits


class TestAligned:
    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("batch", [1, 48])
    @pytest.mark.parametrize("grad", [True, False], ids=["training", "evaluating"])
    def test_decides_as_the_exported_file(
        self,
        digits: Callable[[str], Checkpoint],
        golden: Mapping[str, NDArray[Any]],
        digit_images: Tensor,
        family: str,
        batch: int,
        grad: bool,
    ) -> None:
        checkpoint = digits(family)
        rows = golden[f"{family}_margin"] > tolerances.GOLDEN_DECIDED
        if family not in FILES:
            exported = Exported(checkpoint.vit, checkpoint.plan, checkpoint.model, 17)
            FILES[family] = exported.run(digit_images)
        file = FILES[family]
        model = masked_vit(checkpoint.model, checkpoint.plan).train(grad)
        logits, counts = run(model, digit_images, batch, grad)
        assert rows.sum() > 28
        for wanted_counts, wanted_logits in (
            (file.counts, file.logits),
            (golden[f"{family}_counts"], golden[f"{family}_logits"]),
        ):
            np.testing.assert_array_equal(counts.numpy()[rows], wanted_counts[rows])
            np.testing.assert_allclose(
                logits.numpy()[rows], wanted_logits[rows], rtol=0, atol=tolerances.GOLDEN_EXPORTED
            )

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("case", random_vits.OPTIONS[::2], ids=str)
    def test_holds_the_living_tokens_in_their_order(self, family: str, case: Case) -> None:
        """Which tokens are left, where they stand, and what they are, block by block."""
        model, geometry = random_vits.build(case)
        images = random_vits.images(geometry, case.seed)
        plan = random_vits.middle_plan(model, images, family, case.seed)
        masked = masked_vit(model, plan)
        traces = [Reference(model, plan).run(image) for image in images]
        with torch.enable_grad():
            state = masked.embed(images)
            for block in range(geometry.depth):
                tokens = masked.attend(block, state)
                for kind in masked.steps:
                    tokens = masked.step(kind, tokens, masked.thresholds[kind][block])
                state = masked.finish(block, tokens)
                assert state.x.shape[1] == geometry.patches + 1  # nothing is ever taken away
                for row, trace in enumerate(traces):
                    count = trace.counts[block]
                    alive = torch.arange(geometry.patches + 1) < count
                    assert torch.equal(state.alive[row] > 0, alive)
                    close(state.x[row, :count], trace.tokens[block])
                    close(state.size[row, :count], trace.sizes[block])
            logits = masked.classify(state)
        close(logits, torch.stack([trace.logits for trace in traces]))

    @pytest.mark.parametrize("family", FAMILIES)
    def test_thresholds_from_all_corners(self, family: str) -> None:
        """Nothing goes, everything goes that can, and the other corners."""
        model, geometry = random_vits.build(random_vits.ODD)
        images = random_vits.images(geometry, random_vits.ODD.seed)
        loaded = families.load(family)
        for merge_at, prune_at in ((1.0, 0.0), (0.0, 0.0), (1.0, 1.0), (0.0, 1.0)):
            corner = {"merge": [merge_at] * geometry.depth, "prune": [prune_at] * geometry.depth}
            plan = loaded.freeze(corner)
            wanted = [Reference(model, plan).run(image) for image in images]
            for grad in (True, False):
                logits, counts = run(masked_vit(model, plan), images, len(images), grad)
                assert counts.tolist() == [list(trace.counts) for trace in wanted]
                close(logits, torch.stack([trace.logits for trace in wanted]))

    def test_rows_dead_in_all_images_are_left_out_where_nothing_learns(self) -> None:
        model, geometry = random_vits.build(random_vits.DEEP)
        images = random_vits.images(geometry, random_vits.DEEP.seed)
        plan = random_vits.middle_plan(model, images, "ltmp", random_vits.DEEP.seed)
        with torch.no_grad():
            output = masked_vit(model, plan)(images)
        for mask, counts in zip(output.alive, output.counts.T, strict=True):
            assert mask.shape[1] == max(2, int(counts.max()))


class TestPublished:
    @pytest.mark.parametrize("batch", [1, 7, 48])
    def test_golden(
        self,
        digits: Callable[[str], Checkpoint],
        golden: Mapping[str, NDArray[Any]],
        digit_images: Tensor,
        batch: int,
    ) -> None:
        checkpoint = digits("ltmp")
        model = masked_vit(checkpoint.model, checkpoint.plan, PUBLISHED)
        logits, counts = run(model, digit_images, batch, grad=False)
        np.testing.assert_array_equal(counts.numpy(), golden["ltmp_masked_counts"])
        np.testing.assert_allclose(
            logits.numpy(), golden["ltmp_masked_logits"], rtol=0, atol=tolerances.GOLDEN_REFERENCE
        )

    def test_is_another_function_than_the_deployed_model(
        self, golden: Mapping[str, NDArray[Any]]
    ) -> None:
        """METHOD §1: equal until a first block has removed tokens, then not."""
        deployed, masked = golden["ltmp_counts"], golden["ltmp_masked_counts"]
        assert (deployed[:, 0] == masked[:, 0]).all()
        assert (deployed != masked).any(1).sum() >= 40

    def test_smoothing_is_for_training_alone(self) -> None:
        logits = torch.tensor([[[[0.0, 1.0, 2.0]]]]).expand(1, 1, 3, 3)
        alive = torch.tensor([[1.0, 1.0, 0.0]])
        plain, _ = PUBLISHED.attend(logits, alive, False)
        smooth, _ = PUBLISHED.attend(logits, alive, True)
        raw = torch.tensor([np.exp(-2.0), np.exp(-1.0), 0.0])
        close(plain[0, 0, 0], (raw / raw.sum()).float())
        close(smooth[0, 0, 0], ((raw + 1e-5 / 3) / (raw.sum() + 1e-5)).float())

    def test_importance_counts_dead_queries(self) -> None:
        """The forms differ in this even where they see the same keys."""
        logits = torch.tensor([[[[0.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 5.0, 0.0]]]])
        alive = torch.tensor([[1.0, 1.0, 0.0]])
        _, aligned = ALIGNED.attend(logits, alive, False)
        _, published = PUBLISHED.attend(logits, alive, False)
        received = [0.5, 1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(-5.0))]  # by token 1
        assert float(aligned[0, 1]) == pytest.approx(np.mean(received[:2]), abs=1e-6)
        assert float(published[0, 1]) == pytest.approx(np.mean(received), abs=1e-6)


class TestGradient:
    @pytest.mark.parametrize("tau", [0.1, 0.02])
    def test_of_a_gate_is_that_of_the_sigmoid(self, tau: float) -> None:
        scores = torch.tensor([0.2, 0.5, 0.8, INF, -INF])
        threshold = torch.tensor(0.5, requires_grad=True)
        kept = gate(scores, threshold, tau)
        assert kept.detach().tolist() == [0, 0, 1, 1, 0]  # strictly above
        kept.sum().backward()  # type: ignore[no-untyped-call]
        assert threshold.grad is not None
        soft = 1 / (1 + np.exp(-(np.array([0.2, 0.5, 0.8]) - 0.5) / tau))
        assert float(threshold.grad) == pytest.approx(-(soft * (1 - soft)).sum() / tau, rel=1e-5)

    def test_of_a_pruned_token_reaches_what_it_would_have_given(self) -> None:
        """A dead token gets no attention, but the mask knows what its attention would change."""
        logits = torch.tensor([[[[0.0, 1.0, 2.0]] * 3]])
        alive = torch.tensor([[1.0, 1.0, 0.0]], requires_grad=True)
        weights, _ = ALIGNED.attend(logits, alive, True)
        assert weights[0, 0, 0, 2] == 0.0
        weights[0, 0, 0, 2].backward()  # type: ignore[no-untyped-call]
        assert alive.grad is not None
        e = np.exp([0.0, 1.0, 2.0])
        assert float(alive.grad[0, 2]) == pytest.approx(e[2] / (e[0] + e[1]), rel=1e-5)
        assert float(alive.grad[0, 1]) == pytest.approx(0.0, abs=1e-7)

    def test_of_a_dead_token_with_a_huge_logit_is_finite(self) -> None:
        logits = torch.tensor([[[[0.0, 1.0, 500.0]] * 3]])
        alive = torch.tensor([[1.0, 1.0, 0.0]], requires_grad=True)
        weights, importance = ALIGNED.attend(logits, alive, True)
        assert weights.isfinite().all()
        (weights.sum() + importance[:, 1:].sum()).backward()  # type: ignore[no-untyped-call]
        assert alive.grad is not None
        assert alive.grad.isfinite().all()

    def test_of_a_merge_by_hand(self) -> None:
        """One source of size 2 into one destination of size 3: x and mask by the gate."""
        threshold = torch.tensor(0.5, requires_grad=True)
        tokens = Masked(
            x=torch.tensor([[[9.0], [1.0], [5.0], [7.0]]]),
            size=torch.tensor([[1.0, 3.0, 2.0, 1.0]]),
            alive=torch.ones(1, 4),
            importance=torch.tensor([[INF, 0.1, 0.4, 0.2]]),
            metric=torch.tensor([[[1.0, 0.0], [0.8, 0.6], [1.0, 0.0], [0.0, 1.0]]]),
        )
        found = similarities(tokens.metric, 1)
        merged = merge(tokens, found, threshold, 0.1)
        assert merged.alive.tolist() == [[1, 0, 1, 1]]  # class, source, destinations
        assert merged.x[0, :, 0].tolist() == pytest.approx([9, 5, (3 * 1 + 2 * 5) / 5, 7])
        assert merged.size.tolist() == [[1, 2, 5, 1]]
        assert merged.importance[0, 1:].tolist() == pytest.approx([0.4, 0.4, 0.2])
        soft = 1 / (1 + np.exp(-(0.8 - 0.5) / 0.1))
        slope = -soft * (1 - soft) / 0.1  # of the gate with θ
        (gone,) = torch.autograd.grad(merged.alive[0, 1], threshold, retain_graph=True)
        assert float(gone) == pytest.approx(-slope, rel=1e-5)
        (moved,) = torch.autograd.grad(merged.x[0, 2, 0], threshold)
        by_gate = (10 * 5 - 2 * 13) / 5**2  # d/dg (3 + 10 g) / (3 + 2 g) at g = 1
        assert float(moved) == pytest.approx(slope * by_gate, rel=1e-5)

    @pytest.mark.parametrize("merges", [True, False])
    @pytest.mark.parametrize("alive", [True, False])
    def test_of_a_source_that_was_or_was_not_there(self, alive: bool, merges: bool) -> None:
        """The mask after a merge is mask times (1 - gate): its slope is 1 - gate, dead or alive."""
        mask = torch.tensor([[1.0, 1.0, float(alive), 1.0]], requires_grad=True)
        tokens = Masked(
            x=torch.zeros(1, 4, 1), size=torch.ones(1, 4), alive=mask,
            importance=torch.full((1, 4), 0.1), metric=torch.ones(1, 4, 1),
        )  # fmt: skip
        found = similarities(tokens.metric, 1)
        merged = merge(tokens, found, torch.tensor(0.5 if merges else 1.0), 0.1)
        assert float(merged.alive[0, 1].detach()) == float(alive and not merges)
        (slope,) = torch.autograd.grad(merged.alive[0, 1], mask)
        assert float(slope[0, 2]) == float(not merges)

    def test_of_a_pruned_token_that_was_or_was_not_there(self) -> None:
        mask = torch.tensor([[1.0, 1.0, 0.0, 1.0, 0.0]], requires_grad=True)
        tokens = Masked(
            x=torch.zeros(1, 5, 1), size=torch.ones(1, 5), alive=mask,
            importance=torch.tensor([[INF, 0.9, 0.9, 0.1, 0.1]]), metric=torch.zeros(1, 5, 1),
        )  # fmt: skip
        pruned = prune(tokens, torch.tensor(0.5), 0.1)
        (slope,) = torch.autograd.grad(pruned.alive.sum(), mask)
        assert slope.tolist() == [[1, 1, 1, 0, 0]]

    def test_of_the_published_form(self) -> None:
        """There a threshold learns through the mask alone, and only that of the last decision."""
        threshold = torch.tensor(0.5, requires_grad=True)
        mask = torch.tensor([[1.0, 1.0, 1.0, 1.0]], requires_grad=True)
        tokens = Masked(
            x=torch.tensor([[[9.0], [1.0], [5.0], [7.0]]]), size=torch.ones(1, 4), alive=mask,
            importance=torch.tensor([[INF, 0.1, 0.4, 0.2]]),
            metric=torch.tensor([[[1.0, 0.0], [0.8, 0.6], [1.0, 0.0], [0.0, 1.0]]]),
        )  # fmt: skip
        merged = PUBLISHED.merge(tokens, threshold, 0.1)
        aligned = ALIGNED.merge(tokens, threshold, 0.1)
        assert merged.alive.tolist() == [[1, 0, 1, 1]]
        assert aligned.alive.tolist() == [[1, 1, 1, 0]]  # the same tokens, the living first
        assert not merged.x.requires_grad
        assert aligned.x.requires_grad
        (through,) = torch.autograd.grad(merged.alive[0, 1], threshold, retain_graph=True)
        soft = 1 / (1 + np.exp(-(0.8 - 0.5) / 0.1))
        assert float(through) == pytest.approx(soft * (1 - soft) / 0.1, rel=1e-5)
        slope = torch.autograd.grad(merged.alive[0, :2].sum(), mask, allow_unused=True)[0]
        assert slope is None or not slope.any()

    def test_of_a_pruning_by_hand(self) -> None:
        threshold = torch.tensor(0.3, requires_grad=True)
        tokens = Masked(
            x=torch.zeros(1, 3, 1), size=torch.ones(1, 3), alive=torch.tensor([[1.0, 0.0, 1.0]]),
            importance=torch.tensor([[INF, 0.9, 0.1]]), metric=torch.zeros(1, 3, 1),
        )  # fmt: skip
        pruned = prune(tokens, threshold, 0.1)
        assert pruned.alive.tolist() == [[1, 0, 0]]  # a dead token stays dead
        (slope,) = torch.autograd.grad(pruned.alive.sum(), threshold)
        soft = 1 / (1 + np.exp(-(0.1 - 0.3) / 0.1))
        assert float(slope) == pytest.approx(-soft * (1 - soft) / 0.1, rel=1e-5)

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
    @pytest.mark.parametrize("case", [*random_vits.POOLED, random_vits.TIED], ids=str)
    def test_reaches_every_threshold_and_is_finite(
        self, family: str, form: Form, case: Case
    ) -> None:
        """Also on an image of one colour, whose tokens are all alike."""
        model, geometry = random_vits.build(case)
        images = random_vits.images(geometry, case.seed)
        images[0] = 0.5
        plan = random_vits.middle_plan(model, images, family, case.seed)
        masked = masked_vit(model, plan, form).train()
        output = masked(images)
        (output.logits.square().mean() + sum(m.mean() for m in output.alive)).backward()
        for kind, values in masked.thresholds.items():
            assert values.grad is not None
            assert values.grad.isfinite().all(), kind
            # as published, a source that does not merge leaves no trace behind the pruning
            reached = values.grad != 0
            assert reached.any() if form is PUBLISHED else reached.all(), kind

    def test_more_tokens_for_a_lower_prune_threshold(self) -> None:
        """The budget pulls the right way: its gradient with θp is negative, with θm positive."""
        model, geometry = random_vits.build(random_vits.DEEP)
        images = random_vits.images(geometry, random_vits.DEEP.seed)
        plan = random_vits.middle_plan(model, images, "ltmp", random_vits.DEEP.seed)
        masked = masked_vit(model, plan).train()
        masked(images).alive[-1].mean().backward()
        assert (masked.thresholds["merge"].grad > 0).all()
        assert (masked.thresholds["prune"].grad < 0).all()


def test_candidates_are_what_the_reference_compares() -> None:
    model, geometry = random_vits.build(random_vits.DEEP)
    images = random_vits.images(geometry, random_vits.DEEP.seed)
    plan = random_vits.middle_plan(model, images, "ltpm", random_vits.DEEP.seed)
    masked = masked_vit(model, plan)
    traces = [Reference(model, plan).run(image) for image in images]
    with torch.no_grad():
        state = masked.embed(images)
        for block in range(geometry.depth):
            tokens = masked.attend(block, state)
            for step, kind in enumerate(masked.steps):
                wanted = [trace.decisions[block][step].score for trace in traces]
                together = torch.cat([score[score.isfinite()] for score in wanted])
                close(candidates(kind, tokens).sort().values, together.sort().values)
                tokens = masked.step(kind, tokens, masked.thresholds[kind][block])
            state = masked.finish(block, tokens)


def close(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got.detach(), wanted, rtol=0, atol=tolerances.MASKED)
