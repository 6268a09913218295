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
from ltmp_export.errors import InputError, UnavailableError
from ltmp_export.images.labelled import Arrays, Labelled
from ltmp_export.plan.geometry import Vit
from ltmp_export.plan.work import dense_macs, macs
from ltmp_export.training import history, masked
from ltmp_export.training.budget import mac_ratio
from ltmp_export.training.forms import FORMS
from ltmp_export.training.loop import Course, Record, Trainer
from ltmp_export.training.model import MaskedVit
from ltmp_export.training.processes import Process, process
from ltmp_export.training.settings import Settings
from tests.makers import random_vits

CASE = random_vits.DEEP
ALONE = Process(0, 1, torch.device("cpu"))
SETTINGS = Settings(
    reduction_target=0.5,
    epochs=2,
    batch_size=8,
    lr={"merge": 0.05, "prune": 0.005},
    augment="none",
)


def data(count: int = 20) -> Labelled:
    _, geometry = random_vits.build(CASE)
    pixels = random_vits.images(geometry, CASE.seed, count).numpy()
    labels = np.random.default_rng(0).integers(0, geometry.classes, count)
    names = tuple(map(str, range(count)))
    return Labelled(Arrays(pixels), np.arange(count), labels, names, "noise")


def trainer(
    settings: Settings = SETTINGS,
    family: str = "ltmp",
    images: Labelled | None = None,
    place: Process = ALONE,
) -> Trainer:
    model, geometry = random_vits.build(CASE)
    loaded = families.load(family)
    start = {kind: [{"merge": 0.8, "prune": 0.02}[kind]] * geometry.depth for kind in loaded.start}
    masked = MaskedVit(model, loaded, start, FORMS[settings.form], settings.tau)
    return Trainer(masked, geometry, images or data(), settings, place)


class TestBudget:
    def test_is_the_formula_of_the_paper(self) -> None:
        """METHOD §1, word for word, for an MLP four times as wide."""
        vit = geometry_of("vit_tiny")
        kept = torch.tensor([0.9, 0.5, 0.4], dtype=torch.float64)
        n, d = vit.patches + 1, vit.width
        before = [1.0, 0.9, 0.5]
        terms = [
            2 * m * n * d**2 + (m * n) ** 2 * d + 4 * after * n * d**2
            for m, after in zip(before, kept.tolist(), strict=True)
        ]
        wanted = sum(terms) / len(terms) / (6 * n * d**2 + n**2 * d)
        assert float(mac_ratio(vit, kept)) == pytest.approx(wanted, rel=1e-12)

    def test_is_what_the_blocks_execute(self) -> None:
        """On images of equal counts, patch embedding and classifier apart; for any widths."""
        _, vit = random_vits.build(CASE)
        counts = [30, 21, 9, 4]
        fixed = macs(vit, counts) - blocks_macs(vit, counts)
        wanted = (macs(vit, counts) - fixed) / (dense_macs(vit) - fixed)
        kept = torch.tensor(counts, dtype=torch.float64) / (vit.patches + 1)
        assert float(mac_ratio(vit, kept)) == pytest.approx(wanted, rel=1e-12)

    def test_of_nothing_removed(self) -> None:
        _, vit = random_vits.build(CASE)
        assert float(mac_ratio(vit, torch.ones(vit.depth))) == pytest.approx(1.0)


def geometry_of(name: str) -> Vit:
    _, vit = random_vits.build(CASE)
    return replace(vit, name=name, width=192, mlp_width=768, heads=3, head_width=64, depth=3)


def blocks_macs(vit: Vit, counts: list[int]) -> int:
    """Everything but patch embedding and classifier, by hand."""
    incoming, total, inner = vit.patches + 1, 0, vit.heads * vit.head_width
    for outgoing in counts:
        total += 4 * incoming * vit.width * inner + 2 * incoming**2 * inner
        total += 2 * outgoing * vit.width * vit.mlp_width
        incoming = outgoing
    return total


class TestCourse:
    def test_every_image_at_most_once_an_epoch(self) -> None:
        course = Course(20, SETTINGS)
        assert course.steps == 2
        assert course.total == 4
        seen = [i for parts in course.parts(0) for part in parts for i in part]
        assert len(seen) == len(set(seen)) == 16

    def test_epochs_and_seeds_differ(self) -> None:
        orders = {
            tuple(next(Course(20, replace(SETTINGS, seed=seed)).parts(epoch))[0])
            for seed in (0, 1)
            for epoch in (0, 1)
        }
        assert len(orders) == 4

    @pytest.mark.parametrize(("count", "accumulate"), [(2, 1), (1, 2), (2, 2), (4, 2), (1, 8)])
    def test_sharing_a_step_leaves_its_images(self, count: int, accumulate: int) -> None:
        settings = replace(SETTINGS, accumulate=accumulate)
        whole = next(Course(20, SETTINGS).parts(1, 1))[0]
        shares = [next(Course(20, settings, rank, count).parts(1, 1)) for rank in range(count)]
        assert all(len(share) == accumulate for share in shares)
        sizes = {len(part) for share in shares for part in share}
        assert sizes == {8 // (count * accumulate)}
        assert sorted(i for share in shares for part in share for i in part) == sorted(whole)

    def test_schedule(self) -> None:
        course = Course(20, SETTINGS)
        rates = [course.rate(step) for step in range(5)]
        assert rates[0] == 1.0
        assert rates[2] == pytest.approx(0.5)
        assert rates[4] == pytest.approx(0.0)
        assert rates == sorted(rates, reverse=True)

    @pytest.mark.parametrize(
        ("images", "change", "count", "says"),
        [
            (7, {}, 1, "7 images to train on, fewer than a batch of 8"),
            (20, {"accumulate": 3}, 1, "a batch of 8 images cannot be shared .* multiple of 3"),
            (20, {"accumulate": 2}, 3, "by 3 processes in 2 parts each; give a multiple of 6"),
        ],
    )
    def test_refused(self, images: int, change: dict[str, Any], count: int, says: str) -> None:
        with pytest.raises(InputError, match=says):
            Course(images, replace(SETTINGS, **change), 0, count)


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
        ratio = mac_ratio(run.vit, kept)
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

        def similarities(source: Tensor, destination: Tensor) -> Tensor:
            found = plain(source, destination)
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


class TestHistory:
    def test_there_and_back(self) -> None:
        records = list(trainer().run())
        assert history.from_tensor(history.to_tensor(records), ("merge", "prune")) == records

    def test_csv(self) -> None:
        records = list(trainer().run())
        header, *rows = history.to_csv(records).decode().splitlines()
        assert header == (
            "epoch,step,loss,cross_entropy,accuracy,mac_ratio,rate,"
            "merge_0,merge_1,merge_2,merge_3,prune_0,prune_1,prune_2,prune_3"
        )
        assert len(rows) == 4
        assert rows[3].startswith("1,3,")
        values = dict(zip(header.split(","), map(float, rows[1].split(",")), strict=True))
        assert values["loss"] == pytest.approx(records[1].loss, rel=1e-8)
        assert values["prune_2"] == pytest.approx(records[1].thresholds["prune"][2], rel=1e-8)

    def test_of_no_step(self) -> None:
        assert history.to_csv([]).decode().startswith("epoch,step,loss")


class TestSettings:
    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"reduction_target": 0.0}, "a reduction target of 0; expected the share"),
            ({"reduction_target": 60.0}, "a reduction target of 60; expected .* at most 1"),
            ({"epochs": 0}, "epochs is 0; expected at least 1"),
            ({"batch_size": 0}, "batch size is 0"),
            ({"accumulate": 0}, "accumulate is 0"),
            ({"lr": {"merge": -1.0}}, "learning rate of merge is -1"),
            ({"lr": {"prune": math.nan}}, "learning rate of prune is nan"),
            ({"start": {"merge": 1.5}}, r"merge starts at 1.5; a threshold lies in \[0, 1\]"),
            ({"tau": 0.0}, "tau is 0"),
            ({"label_smoothing": 1.0}, "label smoothing is 1"),
            ({"train_all": -1.0}, "learning rate is -1"),
            ({"seed": -1}, "seed is -1"),
            ({"form": "other"}, "no such form"),
        ],
    )
    def test_refused(self, change: dict[str, Any], says: str) -> None:
        with pytest.raises(InputError, match=says):
            replace(SETTINGS, **change)

    def test_float16_that_never_gives_a_gradient_is_refused(self) -> None:
        """GradScaler passes over such steps: the run would end as if it had learned."""
        broken = data()
        reader = Arrays(np.full_like(broken.reader.pixels, np.inf))  # type: ignore[attr-defined]
        settings = replace(SETTINGS, precision="float16", epochs=20)
        run = trainer(settings, images=replace(broken, reader=reader))
        with pytest.raises(InputError, match="float16 gave no finite gradient at any scale up to"):
            list(run.run())


class TestProcess:
    @pytest.mark.parametrize("missing", ["RANK", "MASTER_ADDR"])
    def test_what_torchrun_sets_in_part(
        self, monkeypatch: pytest.MonkeyPatch, missing: str
    ) -> None:
        told = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"}
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv(missing)
        with (
            pytest.raises(InputError, match=f"WORLD_SIZE is set, but not {missing}"),
            process("cpu"),
        ):
            pass

    def test_alone(self) -> None:
        with process("cpu") as place:
            assert (place.rank, place.count, place.device.type) == (0, 1, "cpu")
            assert place.first
            model = torch.nn.Linear(1, 1)
            assert place.share(model) is model
            values = torch.tensor([1.0, 2.0])
            assert place.mean(values) is values

    def test_no_such_device(self) -> None:
        with (
            pytest.raises(InputError, match="no device 'tpu'; expected auto, cpu or cuda"),
            process("tpu"),
        ):
            pass

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_no_gpu(self) -> None:
        with process("auto") as place:
            assert place.device.type == "cpu"
        with (
            pytest.raises(UnavailableError, match="sees no GPU; give --device cpu"),
            process("cuda"),
        ):
            pass
