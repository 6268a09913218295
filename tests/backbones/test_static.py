"""Graphs with static token counts: the authors' fixed-rate models, budgets, and shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images import inputs
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.reference import Reference
from ltmp_export.runtimes import opsets, session
from ltmp_export.steps.merge_most.step import MergeMost
from ltmp_export.steps.prune_least.step import PruneLeast
from tests import tolerances
from tests.makers.exported import Exported
from tests.makers.shapes import COUNTING, data_dependent, inferred

Digits: TypeAlias = Callable[[str], Checkpoint]
Golden: TypeAlias = Mapping[str, NDArray[Any]]

OPSETS = (16, 17, 18, 20, opsets.newest_opset())
CLASSIFYING = [name for name in families.names() if not families.load(name).cut]
STATIC = [name for name in families.names() if not families.load(name).varies]


def runs(names: Iterable[str]) -> list[tuple[str, int, int]]:
    """Of each family the opset, and how many of 48 images at once; each opset in some family."""
    return [
        run
        for turn, name in enumerate(names)
        for run in ((name, 17, 1), (name, OPSETS[turn % 3], 7), (name, OPSETS[3 + turn % 2], 7))
    ]


_MADE: dict[tuple[Any, ...], Exported] = {}


def export(checkpoint: Checkpoint, opset: int, batch_size: int | None = None) -> Exported:
    """The graph of a checkpoint, lowered once."""
    key = (checkpoint.plan.family, checkpoint.plan.keep, opset, batch_size)
    if key not in _MADE:
        given = checkpoint.vit, checkpoint.plan, checkpoint.model
        _MADE[key] = Exported(*given, opset, batch_size)
    return _MADE[key]


def ample(checkpoint: Checkpoint) -> Checkpoint:
    """With a budget of all the tokens there are."""
    keep = (checkpoint.vit.tokens,) * checkpoint.vit.depth
    return replace(checkpoint, plan=checkpoint.plan.within(keep))


def within_counts(checkpoint: Checkpoint, counts: NDArray[np.int64], share: float) -> Checkpoint:
    """With a budget that so large a share of the images fits into, block by block."""
    keep = np.quantile(counts, share, axis=0, method="higher").tolist()
    return replace(checkpoint, plan=checkpoint.plan.within([int(n) for n in keep]))


class TestAuthorsFixedRates:
    """golden.npz: the authors' own models with r = 8 on the base weights."""

    @pytest.mark.parametrize(("family", "opset", "batch"), runs(families.counted()))
    def test_exported_graph(
        self, digits: Digits, golden: Golden, digit_images: Tensor, family: str, opset: int,
        batch: int,
    ) -> None:  # fmt: skip
        result = export(digits(family), opset).run_in_batches(digit_images, batch)
        np.testing.assert_array_equal(result.counts, golden[f"{family}_counts"])
        np.testing.assert_allclose(
            result.logits, golden[f"{family}_logits"], rtol=0, atol=tolerances.GOLDEN_EXPORTED
        )

    @pytest.mark.parametrize("family", families.counted())
    def test_graph_for_single_images(
        self, digits: Digits, golden: Golden, digit_images: Tensor, family: str
    ) -> None:
        result = export(digits(family), 17, batch_size=1).run_in_batches(digit_images, 1)
        np.testing.assert_allclose(
            result.logits, golden[f"{family}_logits"], rtol=0, atol=tolerances.GOLDEN_EXPORTED
        )

    @pytest.mark.parametrize("family", families.counted())
    def test_reference(
        self, digits: Digits, golden: Golden, digit_images: Tensor, family: str
    ) -> None:
        reference = Reference(digits(family).model, digits(family).plan)
        traces = [reference.run(image) for image in digit_images]
        np.testing.assert_array_equal([t.counts for t in traces], golden[f"{family}_counts"])
        np.testing.assert_allclose(
            np.stack([t.logits for t in traces]),
            golden[f"{family}_logits"],
            rtol=0,
            atol=tolerances.GOLDEN_REFERENCE,
        )

    @pytest.mark.parametrize("family", families.counted())
    def test_counts_of_each_step(self, digits: Digits, golden: Golden, family: str) -> None:
        checkpoint = digits(family)
        for kind in families.load(family).counts:
            steps = [step for steps in checkpoint.plan.blocks for step in steps]
            counted = [step for step in steps if isinstance(step, (MergeMost, PruneLeast))]
            found = [step.count for step in counted if step.action == kind]
            assert found == golden[f"{family}_r_{kind}"].tolist()
        counts = checkpoint.plan.counts(checkpoint.vit.tokens, checkpoint.vit.prefix)
        assert counts == tuple(golden[f"{family}_counts"][0])


class TestBudgets:
    @pytest.mark.parametrize(("family", "opset", "batch"), runs(families.learned()))
    def test_an_ample_budget_is_exact(
        self, digits: Digits, golden: Golden, digit_images: Tensor, family: str, opset: int,
        batch: int,
    ) -> None:  # fmt: skip
        """All 48 images, not only those whose decisions are clear: it is the dynamic model."""
        result = export(ample(digits(family)), opset).run_in_batches(digit_images, batch)
        dynamic = export(digits(family), opset).run_in_batches(digit_images, batch)
        np.testing.assert_array_equal(result.counts, dynamic.counts)
        np.testing.assert_array_equal(result.counts, golden[f"{family}_counts"])
        np.testing.assert_allclose(
            result.logits, golden[f"{family}_logits"], rtol=0, atol=tolerances.GOLDEN_EXPORTED
        )

    @pytest.mark.parametrize("family", families.learned())
    def test_images_that_fit_are_exact_and_the_others_are_counted(
        self, digits: Digits, golden: Golden, digit_images: Tensor, family: str
    ) -> None:
        counts = golden[f"{family}_counts"]
        checkpoint = within_counts(digits(family), counts, 0.75)
        keep = np.array(checkpoint.plan.keep)
        model = to_onnx(checkpoint, opset=17, token_counts=True)
        logits, found, overflow = session.Session(model).run(digit_images.numpy())
        fits = np.asarray((counts <= keep).all(1))
        assert 0 < fits.sum() < len(counts)
        np.testing.assert_array_equal(overflow.sum(1) == 0, fits)
        np.testing.assert_array_equal(found[fits], counts[fits])
        assert (found <= keep).all()
        assert overflow.dtype == np.int64
        np.testing.assert_allclose(
            logits[fits], golden[f"{family}_logits"][fits], rtol=0, atol=tolerances.GOLDEN_EXPORTED
        )

    @pytest.mark.parametrize("family", families.learned())
    def test_the_least_important_tokens_are_dropped_in_the_first_block_that_overflows(
        self, digits: Digits, golden: Golden, digit_images: Tensor, family: str
    ) -> None:
        """Told from the dynamic reference: what it keeps, ranked by what it knows of importance."""
        checkpoint = digits(family)
        counts = golden[f"{family}_counts"][:, 0]
        most = int(np.median(counts))
        budget = replace(checkpoint, plan=checkpoint.plan.within([most] * 6))
        tight = Reference(budget.model, budget.plan, torch.float64)
        for number in np.flatnonzero(counts > most)[:4]:
            trace = tight.run(digit_images[number])
            decision = trace.decisions[0][-1]
            kept, score = decision.chosen, decision.score
            assert int(kept.sum()) == most == trace.counts[0]
            assert len(kept) == counts[number]
            assert float(score[kept].min()) >= float(score[~kept].max())
            assert bool(kept[0])

    def test_check_tells_who_fits(
        self, digits: Digits, golden: Golden, digit_images: Tensor
    ) -> None:
        checkpoint = within_counts(digits("ltmp"), golden["ltmp_counts"], 0.75)
        model = to_onnx(checkpoint, opset=17, token_counts=True)
        images = inputs.load_images(None, checkpoint.vit, checkpoint.preprocessing)
        report = compare.compare(model, checkpoint, images, batch_sizes=(1, 7))
        assert report.verdict == "equal"
        assert report.keep_tokens == checkpoint.plan.keep
        fits = (golden["ltmp_counts"] <= np.array(checkpoint.plan.keep)).all(1)
        assert report.fitting() == (fits.sum(), 48)
        assert {c.number for c in report.comparisons if not c.overflow} == set(np.flatnonzero(fits))


class TestShapes:
    @pytest.mark.parametrize(("opset", "batch_size"), [(16, None), (17, 1), (OPSETS[-1], None)])
    @pytest.mark.parametrize("family", families.names())
    def test_no_shape_depends_on_data(
        self, digits: Digits, family: str, opset: int, batch_size: int | None
    ) -> None:
        """What TensorRT and its like do not take: data-dependent shapes, scatter with reduction."""
        checkpoint = digits(family) if family in STATIC else ample(digits(family))
        model = to_onnx(checkpoint, opset=opset, batch_size=batch_size, token_counts=True)
        assert data_dependent(model) == []
        kinds = {node.op_type for node in model.graph.node}
        assert not kinds & COUNTING
        assert not any(kind.startswith("Scatter") for kind in kinds)

    @pytest.mark.parametrize("family", families.learned())
    def test_the_dynamic_graphs_do_depend_on_data(self, digits: Digits, family: str) -> None:
        """So the test above can fail."""
        found = data_dependent(to_onnx(digits(family), opset=17))
        assert any(node.startswith("Compress") for node in found)

    @pytest.mark.parametrize("family", STATIC)
    def test_token_counts_are_numbers_in_the_graph(self, digits: Digits, family: str) -> None:
        checkpoint = digits(family)
        model = to_onnx(checkpoint, opset=17)
        shapes = inferred(model)
        vit, plan = checkpoint.vit, checkpoint.plan
        for block, rows in enumerate(plan.rows(vit.tokens, vit.prefix)):
            last = plan.ends and block == len(plan.blocks) - 1
            behind = rows.left if last else plan.behind(block, *rows[:3])
            assert shapes[f"block_{block:02d}/tokens"][1:] == [behind, vit.width]

    def test_a_budget_is_in_the_graph(self, digits: Digits) -> None:
        checkpoint = digits("ltmp")
        keep = [60, 50, 40, 30, 20, 10]
        model = to_onnx(replace(checkpoint, plan=checkpoint.plan.within(keep)), opset=17)
        shapes = inferred(model)
        for block, most in enumerate(keep):
            assert shapes[f"block_{block:02d}/tokens"][1:] == [most, 128]
        names = [output.name for output in model.graph.output]
        assert names == ["logits", "overflow"]

    def test_a_single_image_is_static_throughout(self, digits: Digits) -> None:
        model = to_onnx(digits("m"), opset=17, batch_size=1)
        assert not [name for name, shape in inferred(model).items() if "?" in shape]


@pytest.mark.parametrize("family", sorted({*STATIC} & {*CLASSIFYING}))
def test_any_batch(digits: Digits, digit_images: Tensor, family: str) -> None:
    exported = export(digits(family), 17)
    alone = exported.run_in_batches(digit_images[:31], 1)
    for batch in (0, 1, 2, 31):
        result = exported.run(digit_images[:batch])
        assert result.logits.shape == (batch, 10)
        assert result.counts.shape == (batch, 6)
        np.testing.assert_allclose(result.logits, alone.logits[:batch], atol=1e-5)


@pytest.mark.parametrize("family", CLASSIFYING)
def test_nan_stays_in_its_own_row(digits: Digits, digit_images: Tensor, family: str) -> None:
    checkpoint = digits(family) if family in STATIC else ample(digits(family))
    images = digit_images[:3].clone()
    images[1, 0, 5, 5] = torch.nan
    exported = export(checkpoint, 17)
    clean = exported.run(digit_images[:3])
    result = exported.run(images)
    np.testing.assert_allclose(result.logits[[0, 2]], clean.logits[[0, 2]], atol=1e-5)
    assert np.isnan(result.logits[1]).all()
