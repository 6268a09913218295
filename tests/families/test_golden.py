"""The authors' own models on 48 digits (fixtures/README.md), family by family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.reference import Reference
from ltmp_export.runtimes import opsets
from tests import tolerances
from tests.makers.exported import Exported, numpy_weights
from tests.oracles import oracle

Digits: TypeAlias = Callable[[str], Checkpoint]
Golden: TypeAlias = Mapping[str, NDArray[Any]]
Exports: TypeAlias = Callable[[str, int], Exported]

OPSETS = (16, 17, 18, 20, opsets.newest_opset())
BATCHES = (1, 7, 48)  # 48 = 6 * 7 + 6: the last batch of 7 is a short one
DECIDED = {"ltm": 46, "ltmp": 43, "ltp": 32, "ltpm": 29}  # of 48 images, by golden.npz
FAMILIES = tuple(DECIDED)


@pytest.fixture(scope="module")
def exported(digits: Digits) -> Exports:
    """The digits model of a family at an opset, lowered once."""
    made: dict[tuple[str, int], Exported] = {}

    def export(family: str, opset: int) -> Exported:
        if (family, opset) not in made:
            checkpoint = digits(family)
            made[family, opset] = Exported(checkpoint.vit, checkpoint.plan, checkpoint.model, opset)
        return made[family, opset]

    return export


def decided(golden: Golden, family: str) -> NDArray[np.bool_]:
    """The images whose decisions float32 cannot flip."""
    rows: NDArray[np.bool_] = golden[f"{family}_margin"] > tolerances.GOLDEN_DECIDED
    assert rows.sum() == DECIDED[family]
    return rows


def compare(
    golden: Golden, family: str, logits: NDArray[Any], counts: NDArray[Any], tolerance: float
) -> None:
    rows = decided(golden, family)
    assert np.isfinite(logits).all()
    np.testing.assert_array_equal(counts[rows], golden[f"{family}_counts"][rows])
    np.testing.assert_allclose(
        logits[rows], golden[f"{family}_logits"][rows], rtol=0, atol=tolerance
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("batch", BATCHES)
def test_exported_graph(
    exported: Exports,
    golden: Golden,
    digit_images: Tensor,
    family: str,
    opset: int,
    batch: int,
) -> None:
    result = exported(family, opset).run_in_batches(digit_images, batch)
    assert result.logits.dtype == np.float32
    assert result.counts.dtype == np.int64
    compare(golden, family, result.logits, result.counts, tolerances.GOLDEN_EXPORTED)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("opset", OPSETS)
def test_graph_for_single_images(
    digits: Digits, golden: Golden, digit_images: Tensor, family: str, opset: int
) -> None:
    checkpoint = digits(family)
    single = Exported(checkpoint.vit, checkpoint.plan, checkpoint.model, opset, batch_size=1)
    result = single.run_in_batches(digit_images, 1)
    compare(golden, family, result.logits, result.counts, tolerances.GOLDEN_EXPORTED)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_reference(
    digits: Digits, golden: Golden, digit_images: Tensor, family: str, dtype: torch.dtype
) -> None:
    checkpoint = digits(family)
    reference = Reference(checkpoint.model, checkpoint.plan, dtype)
    traces = [reference.run(image) for image in digit_images]
    logits = np.stack([trace.logits.numpy() for trace in traces])
    counts = np.array([trace.counts for trace in traces])
    assert traces[0].logits.dtype == dtype
    compare(golden, family, logits, counts, tolerances.GOLDEN_REFERENCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_oracle_itself(digits: Digits, golden: Golden, digit_images: Tensor, family: str) -> None:
    """What judges the tool elsewhere agrees with the authors: logits, counts and margins."""
    checkpoint = digits(family)
    thresholds = checkpoint.plan.thresholds()
    weights = numpy_weights(checkpoint.model)
    rows = np.flatnonzero(decided(golden, family))[:6]
    for row in rows:
        result = oracle.run(
            weights,
            digit_images[row].numpy(),
            family=family,
            merge=thresholds.get("merge"),
            prune=thresholds.get("prune"),
            heads=checkpoint.vit.heads,
        )
        assert result.counts == tuple(golden[f"{family}_counts"][row])
        np.testing.assert_allclose(
            result.logits,
            golden[f"{family}_logits"][row],
            rtol=0,
            atol=tolerances.GOLDEN_ORACLE,
        )
    assert len(rows) == 6


@pytest.mark.parametrize("family", FAMILIES)
def test_row_does_not_depend_on_its_batch(
    exported: Exports, golden: Golden, digit_images: Tensor, family: str
) -> None:
    """Any order, any neighbours, any batch size: the row of the image alone."""
    model, rows = exported(family, 17), decided(golden, family)
    alone = model.run_in_batches(digit_images, 1)
    rng = np.random.default_rng(0)
    for size in (2, 5, 31, 48, 48):
        picked = rng.permutation(48)[:size]
        batch = model.run(digit_images[picked])
        certain = rows[picked]
        np.testing.assert_array_equal(batch.counts[certain], alone.counts[picked][certain])
        np.testing.assert_allclose(
            batch.logits[certain],
            alone.logits[picked][certain],
            rtol=0,
            atol=tolerances.ROW_ALONE,
        )
        assert np.isfinite(batch.logits).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_same_image_many_times(
    exported: Exports, golden: Golden, digit_images: Tensor, family: str
) -> None:
    model, row = exported(family, 17), int(np.flatnonzero(decided(golden, family))[0])
    alone = model.run(digit_images[row : row + 1])
    batch = model.run(digit_images[row].expand(9, -1, -1, -1).contiguous())
    np.testing.assert_array_equal(batch.counts, alone.counts.repeat(9, 0))
    np.testing.assert_allclose(
        batch.logits, alone.logits.repeat(9, 0), rtol=0, atol=tolerances.ROW_ALONE
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("opset", [16, 17, 20])
@pytest.mark.parametrize("value", [np.nan, np.inf], ids=["nan", "inf"])
@pytest.mark.parametrize("where", ["image", "pixel"])
@pytest.mark.parametrize("position", [0, 3, 6])
def test_broken_image_stays_in_its_row(
    exported: Exports,
    golden: Golden,
    digit_images: Tensor,
    family: str,
    opset: int,
    value: float,
    where: str,
    position: int,
) -> None:
    """A NaN or infinite image gives NaN logits in its own row and changes no other."""
    model = exported(family, opset)
    rows = np.flatnonzero(decided(golden, family))[:7]
    images = digit_images[rows].clone()
    whole = model.run(images)
    images[position] = images[position] if where == "pixel" else value
    images[position, 1, 17, 9] = value
    broken = model.run(images)
    others = np.arange(7) != position
    np.testing.assert_array_equal(broken.counts[others], whole.counts[others])
    np.testing.assert_allclose(
        broken.logits[others], whole.logits[others], rtol=0, atol=tolerances.ROW_ALONE
    )
    assert np.isnan(broken.logits[position]).all()
    assert (broken.counts[position] >= 1).all()
    assert (np.diff(broken.counts[position]) <= 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_of_broken_images_only(exported: Exports, digit_images: Tensor, family: str) -> None:
    result = exported(family, 17).run(torch.full_like(digit_images[:3], torch.nan))
    assert np.isnan(result.logits).all()
    assert result.counts.shape == (3, 6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("batch", [0, 1, 2, 31])
def test_shapes_at_any_batch(
    exported: Exports, digit_images: Tensor, family: str, opset: int, batch: int
) -> None:
    result = exported(family, opset).run(digit_images[:batch])
    assert result.logits.shape == (batch, 10)
    assert result.counts.shape == (batch, 6)
