"""The steps of a run: what it computes, and that it does not depend on how the work is shared."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ltmp_export import families
from ltmp_export.errors import InputError
from ltmp_export.images.labelled import Arrays
from ltmp_export.training import masked
from ltmp_export.training.budget import mac_ratio
from ltmp_export.training.forms import FORMS
from ltmp_export.training.loop import Course
from ltmp_export.training.processes import process
from ltmp_export.training.record import Record
from tests.makers.trainers import SETTINGS, data, trainer


class TestSteps:
    def test_first_step_by_hand(self) -> None:
        """Loss, gradient and update of plain SGD, from the model's own output."""
        run = trainer(replace(SETTINGS, label_smoothing=0.2, budget_weight=7.0))
        chosen = next(Course(20, SETTINGS).parts(0))[0]
        images, labels = torch.stack([run.data[i] for i in chosen]), run.labels[chosen]
        hand = trainer().model
        output = hand(images)
        entropy = F.cross_entropy(output.logits, labels, label_smoothing=0.2)
        kept = torch.stack([mask.mean() for mask in output.alive])
        ratio = mac_ratio(run.goal.vit, kept)
        torch.autograd.backward(entropy + 7.0 * (ratio - 0.5) ** 2)
        record = next(run.run())
        assert record.cross_entropy == pytest.approx(float(entropy.detach()), rel=1e-6)
        assert record.mac_ratio == pytest.approx(float(ratio.detach()), rel=1e-6)
        right = (output.logits.argmax(1) == labels).float().mean()
        assert record.accuracy == pytest.approx(float(right))
        assert record.loss == pytest.approx(
            record.cross_entropy + 7.0 * (record.mac_ratio - 0.5) ** 2, rel=1e-6
        )
        for kind, values in hand.thresholds.items():
            assert values.grad is not None
            wanted = (values - SETTINGS.lr[kind] * values.grad).detach().clamp(0, 1)
            torch.testing.assert_close(run.model.thresholds[kind].detach(), wanted)

    @pytest.mark.parametrize("family", families.learned())
    @pytest.mark.parametrize("form", FORMS)
    def test_thresholds_learn_the_target_and_nothing_else_moves(
        self, family: str, form: str
    ) -> None:
        rates = {"merge": 0.02, "prune": 1e-3}
        settings = replace(SETTINGS, reduction_target=0.8, epochs=12, form=form, lr=rates)
        run = trainer(settings, family)
        before = {key: value.clone() for key, value in run.model.vit.state_dict().items()}
        records = list(run.run())
        assert [record.step for record in records] == list(range(24))
        assert [record.epoch for record in records] == [step // 2 for step in range(24)]
        first, last = records[0].mac_ratio, records[-1].mac_ratio
        assert abs(first - 0.8) > 0.1
        assert abs(last - 0.8) < abs(first - 0.8) / 3
        after = run.model.vit.state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before)
        for values in records[-1].thresholds.values():
            assert all(0.0 <= value <= 1.0 for value in values)

    def test_thresholds_stay_in_range(self) -> None:
        run = trainer(replace(SETTINGS, lr={"merge": 50.0, "prune": 50.0}))
        for record in run.run():
            assert all(0 <= v <= 1 for values in record.thresholds.values() for v in values)

    @pytest.mark.parametrize("accumulate", [2, 4, 8])
    def test_a_step_in_parts_is_the_same_step(self, accumulate: int) -> None:
        """The budget term is not a mean over parts: computed part by part it would differ."""
        whole = list(trainer().run())
        parts = list(trainer(replace(SETTINGS, accumulate=accumulate)).run())
        assert len(whole) == len(parts) == 4
        for one, other in zip(whole, parts, strict=True):
            same_step(one, other)

    def test_images_that_do_not_fill_a_batch_wait(self) -> None:
        assert len(list(trainer(images=data(23)).run())) == 4

    def test_can_start_anywhere(self) -> None:
        run = trainer()
        whole = list(run.run())
        later = trainer()
        for kind, values in whole[2].thresholds.items():
            later.model.thresholds[kind].data.copy_(torch.tensor(values))
        assert list(later.run(3)) == whole[3:]

    def test_train_all_moves_the_weights(self) -> None:
        run = trainer(replace(SETTINGS, train_all=1e-3))
        before = {key: value.clone() for key, value in run.model.vit.state_dict().items()}
        records = list(run.run())
        moved = [k for k, v in run.model.vit.state_dict().items() if not torch.equal(v, before[k])]
        assert len(moved) > len(before) / 2
        assert records[-1].thresholds != records[0].thresholds

    @pytest.mark.parametrize("precision", ["bfloat16", "float16"])
    def test_half_precision(self, precision: str) -> None:
        """Products are rounded, decisions are not: near the steps in float32."""
        wanted = list(trainer().run())
        records = list(trainer(replace(SETTINGS, precision=precision)).run())
        assert records != wanted
        assert records[0].mac_ratio == pytest.approx(wanted[0].mac_ratio, abs=0.05)
        assert records[0].cross_entropy == pytest.approx(wanted[0].cross_entropy, rel=0.05)
        assert all(math.isfinite(record.loss) for record in records)

    def test_half_precision_leaves_decisions_in_full(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[torch.dtype] = []
        plain = masked.similarities

        def similarities(metric: Tensor, protected: int) -> Tensor:
            found = plain(metric, protected)
            seen.append(found.dtype)
            return found

        monkeypatch.setattr("ltmp_export.training.forms.similarities", similarities)
        next(trainer(replace(SETTINGS, precision="bfloat16")).run())
        assert set(seen) == {torch.float32}

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
    @pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
    def test_on_a_gpu(self, precision: str) -> None:
        wanted = list(trainer().run())
        with process("cuda") as place:
            run = trainer(replace(SETTINGS, precision=precision), place=place)
            records = list(run.run())
        assert records[0].mac_ratio == pytest.approx(wanted[0].mac_ratio, abs=0.05)
        assert all(math.isfinite(record.loss) for record in records)

    def test_a_gradient_that_is_not_finite_is_refused(self) -> None:
        broken = data()
        reader = Arrays(np.full_like(broken.reader.pixels, np.inf))  # type: ignore[attr-defined]
        run = trainer(images=replace(broken, reader=reader))
        with pytest.raises(InputError, match="the gradient of step 0 is not finite"):
            next(run.run())


def same_step(one: Record, other: Record) -> None:
    """But for the order of sums in float32."""
    assert one.loss == pytest.approx(other.loss, rel=1e-5)
    for kind, values in one.thresholds.items():
        assert values == pytest.approx(other.thresholds[kind], abs=1e-6)


class Noisy:
    """Images whose augmentation draws from all three random states."""

    def __getitem__(self, number: int) -> Tensor:
        drawn = random.random() + float(np.random.rand()) + float(torch.rand(()))
        return torch.full((3, 24, 24), drawn) + torch.eye(24)


class TestAugmentation:
    def test_depends_on_seed_epoch_and_image_alone(self) -> None:
        noisy = replace(data(), reader=Noisy())
        changes: tuple[dict[str, Any], ...] = ({}, {}, {"accumulate": 2}, {"seed": 1})
        runs = [
            list(trainer(replace(SETTINGS, **change), images=noisy).run()) for change in changes
        ]
        assert runs[0] == runs[1]
        same_step(runs[0][0], runs[2][0])
        assert runs[0][0].loss != runs[3][0].loss

    def test_workers_change_nothing(self) -> None:
        noisy = replace(data(), reader=Noisy())
        alone, helped = trainer(images=noisy), trainer(images=noisy)
        helped.workers = 2
        assert list(alone.run()) == list(helped.run())

    def test_leaves_the_random_states_alone(self) -> None:
        run = trainer(images=replace(data(), reader=Noisy()))
        states = random.getstate(), torch.get_rng_state()
        drawn = np.random.get_state()[1].tolist()  # type: ignore[index]
        next(run.run())
        assert random.getstate() == states[0]
        assert torch.equal(torch.get_rng_state(), states[1])
        assert np.random.get_state()[1].tolist() == drawn  # type: ignore[index]
