"""Weights that learn under a static plan: their loss, their steps, what is told of them."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from ltmp_export.errors import InputError
from ltmp_export.training import history
from ltmp_export.training.loop import Course, Trainer
from ltmp_export.training.weights import CLIP, DISTILLATION, LR_NEW, Weights
from tests.makers import random_vits
from tests.makers.small_masks import masks
from tests.makers.trainers import STATIC, static_trainer

MASKS = masks(hard=False, restore=True)


class TestSteps:
    @pytest.mark.parametrize("lr_new", [None, 0.02])
    def test_first_step_by_hand(self, lr_new: float | None) -> None:
        """Loss, clipped gradient and update of AdamW, from timm's model and the static one."""
        settings = replace(STATIC, distil=0.3, label_smoothing=0.2, lr_new=lr_new)
        run = static_trainer(settings, MASKS)
        hand = copy.deepcopy(run.model)
        dense, _ = random_vits.build(random_vits.DEEP)
        chosen = next(Course(20, settings).parts(0))[0]
        images, labels = torch.stack([run.data[i] for i in chosen]), run.labels[chosen]
        logits = hand(images).logits
        entropy = F.cross_entropy(logits, labels, label_smoothing=0.2)
        wanted = dense(images).softmax(1)
        apart = (wanted * (wanted.log() - logits.log_softmax(1))).sum(1).mean()
        torch.autograd.backward(0.7 * entropy + 0.3 * apart)
        gradients = {name: value.grad for name, value in hand.named_parameters()}
        norm = torch.stack([g.norm() for g in gradients.values() if g is not None]).norm()
        assert norm > CLIP
        record = next(run.run())
        assert record.cross_entropy == pytest.approx(float(entropy.detach()), rel=1e-5)
        assert record.terms[DISTILLATION] == pytest.approx(float(apart.detach()), rel=1e-4)
        loss = 0.7 * record.cross_entropy + 0.3 * record.terms[DISTILLATION]
        assert record.loss == pytest.approx(loss)
        after = dict(run.model.named_parameters())
        for name, value in hand.named_parameters():
            grad = gradients[name]
            assert grad is not None
            rate = (lr_new or LR_NEW) if name.startswith("new.") else settings.lr
            clear = grad.abs() > 1e-4  # below it rounding has a say in the direction
            moved = (after[name] - value).detach()[clear]
            assert torch.allclose(moved, -rate * grad[clear].sign(), rtol=1e-2), name

    def test_without_a_teacher(self) -> None:
        records = list(static_trainer(replace(STATIC, distil=0.0)).run())
        assert [record.loss for record in records] == [record.cross_entropy for record in records]
        assert all(record.terms == {} for record in records)
        assert records[-1].cross_entropy < records[0].cross_entropy

    def test_the_teacher_stays_as_it_was(self) -> None:
        run = static_trainer()
        next(run.run())
        assert run.goal.teacher is not None
        dense = random_vits.build(random_vits.DEEP)[0].state_dict()
        for name, value in run.goal.teacher.state_dict().items():
            assert torch.equal(value, dense[name])
        assert not torch.equal(run.goal.model.vit.head.weight, dense["head.weight"])

    @pytest.mark.parametrize("accumulate", [4])
    def test_a_step_in_parts_is_the_same_step(self, accumulate: int) -> None:
        whole = list(static_trainer(STATIC, MASKS).run())
        parts = list(static_trainer(replace(STATIC, accumulate=accumulate), MASKS).run())
        assert len(whole) == len(parts) == 4
        for one, other in zip(whole, parts, strict=True):
            assert one.loss == pytest.approx(other.loss, rel=1e-4)
            assert one.accuracy == other.accuracy

    def test_multiply_accumulates_are_those_of_the_plan(self) -> None:
        """Products of the masks count: restoring from a quarter of the patches saves no half."""
        run = static_trainer(STATIC, MASKS)
        ratio = next(run.run()).mac_ratio
        assert ratio == static_share(run)
        assert 0.5 < ratio < 1.0

    def test_history_there_and_back(self) -> None:
        records = list(static_trainer().run())
        again = history.from_tensor(history.to_tensor(records), (), (DISTILLATION,))
        assert again == records
        header = history.to_csv(records).decode().splitlines()[0]
        assert header == "epoch,step,loss,cross_entropy,accuracy,mac_ratio,rate,distillation"

    @pytest.mark.parametrize("precision", ["bfloat16", "float16"])
    def test_half_precision(self, precision: str) -> None:
        wanted = list(static_trainer(STATIC, MASKS).run())
        records = list(static_trainer(replace(STATIC, precision=precision), MASKS).run())
        assert records != wanted
        assert records[0].loss == pytest.approx(wanted[0].loss, rel=0.05)


def static_share(run: Trainer[Weights]) -> float:
    """By hand: per block 4·N·C² + 2·N²·C of attention, the MLP on 10 tokens, and the masks."""
    tokens, width, hidden, patches, targets = 37, 64, 128, 36, 9
    attention = 4 * tokens * width**2 + 2 * tokens**2 * width
    mlp = 2 * width * hidden
    products = 4 * patches * targets * width
    around = patches * 48 * width + width * 5
    block = attention + (1 + targets) * mlp + products
    return (4 * block + around) / (4 * (attention + tokens * mlp) + around)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lr": -1.0}, "learning rate is -1; expected a number of 0 or more"),
        ({"lr_new": float("nan")}, "learning rate of new weights is nan"),
        ({"distil": 1.5}, "distillation weighs 1.5; expected .* 0 to 1"),
        ({"epochs": 0}, "epochs is 0"),
    ],
)
def test_settings_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        replace(STATIC, **change)
