"""Thresholds as quantiles of scores: the shares of blocks and steps, and what is removed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from ltmp_export import families
from ltmp_export.calibration import quantiles
from ltmp_export.calibration.measure import measure
from ltmp_export.calibration.quantiles import SCHEDULES, Shares
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.reference import Reference
from ltmp_export.training.forms import ALIGNED
from ltmp_export.training.model import MaskedVit
from tests.makers.calibrated import FAMILIES, halves


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", [0.9, 0.5, 0.2])
def test_expected_intensity_is_near_the_found_one(
    dense: Checkpoint, digits_npz: Path, schedule: str, target: float
) -> None:
    """By the formula alone, without any image, the work comes near the target."""
    scored, held_out = halves(dense, digits_npz, 64)
    shares = Shares(0.7, schedule)
    at = quantiles.expected(dense.vit, shares, target)
    thresholds = find(dense, "ltmp", list(scored.batches(16)), shares, at)
    measured = measure(masked(dense, "ltmp", thresholds), dense.vit, held_out)
    assert measured.mac_ratio == pytest.approx(target, rel=0.1)


@pytest.mark.parametrize("depth", [1, 6, 12])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_shares_of_blocks(schedule: str, depth: int) -> None:
    """Whatever the schedule, shares compound to those of the even one."""
    spread = Shares(0.7, schedule)
    for intensity in (0.0, 0.1, 0.5, 0.995):
        shares = [spread.of_block(block, depth, intensity) for block in range(depth)]
        assert all(0.0 <= share < 1.0 for share in shares)
        left = math.prod(1 - share for share in shares)
        assert left == pytest.approx((1 - intensity) ** depth, rel=1e-9)
        falling = {"even": 0, "early": 1, "late": -1}[schedule]
        steps = np.sign(np.round(-np.diff(shares), 9)) if intensity == 0.5 else falling
        assert np.all(steps == falling)


@pytest.mark.parametrize("merge", [0.0, 0.3, 1.0])
def test_shares_of_steps(merge: float) -> None:
    spread = Shares(merge, "even")
    for steps in (("merge", "prune"), ("prune", "merge")):
        assert spread.of_step("merge", steps) == merge
        assert spread.of_step("prune", steps) == pytest.approx(1 - merge)
    assert spread.of_step("merge", ("merge",)) == 1.0
    assert spread.of_step("prune", ("prune",)) == 1.0


def masked(source: Checkpoint, family: str, thresholds: dict[str, list[float]]) -> MaskedVit:
    return MaskedVit(source.model, families.load(family), thresholds, ALIGNED).eval()


def find(
    source: Checkpoint, family: str, batches: Sequence[Tensor], shares: Shares, intensity: float
) -> dict[str, list[float]]:
    flat = {kind: [0.5] * source.vit.depth for kind in families.load(family).scalars}
    model = masked(source, family, flat)
    walks = [quantiles.Walk(model, batch) for batch in batches]
    return quantiles.thresholds(
        lambda taken: [walk.look(taken) for walk in walks],
        source.vit.depth, model.steps, shares, intensity,
    )  # fmt: skip


def counts_under(
    source: Checkpoint, family: str, thresholds: dict[str, list[float]], images: Tensor
) -> NDArray[np.int64]:
    """[n, depth] tokens, by the eager reference."""
    reference = Reference(source.model, families.load(family).freeze(thresholds))
    return np.array([reference.run(image).counts for image in images])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("family", FAMILIES)
def test_quantiles_remove_about_the_wanted_shares(
    dense: Checkpoint, digit_images: Tensor, family: str, schedule: str
) -> None:
    shares, images = Shares(0.6, schedule), digit_images[:12]
    found = find(dense, family, [images[:5], images[5:]], shares, 0.15)
    assert set(found) == set(families.load(family).scalars)
    for values in found.values():
        assert len(values) == dense.vit.depth
        assert all(0.0 <= value <= 1.0 for value in values)
        assert values == np.array(values, dtype=np.float32).tolist()
    living = counts_under(dense, family, found, images).sum(0)
    before = np.array([12 * 65, *living[:-1]])
    wanted = [shares.of_block(block, dense.vit.depth, 0.15) for block in range(dense.vit.depth)]
    np.testing.assert_allclose(1 - living / before, wanted, atol=0.015)


@pytest.mark.parametrize("family", FAMILIES)
def test_intensity_0_removes_nothing(dense: Checkpoint, digit_images: Tensor, family: str) -> None:
    found = find(dense, family, [digit_images[:4]], Shares(0.7, "late"), 0.0)
    assert set(found.get("merge", [1.0])) == {1.0}
    assert set(found.get("prune", [0.0])) == {0.0}
    assert (counts_under(dense, family, found, digit_images[:4]) == 65).all()


def test_quantiles_do_not_depend_on_the_batches(dense: Checkpoint, digit_images: Tensor) -> None:
    shares, images = Shares(0.7, "even"), digit_images[:8]
    together = find(dense, "ltmp", [images], shares, 0.1)
    apart = find(dense, "ltmp", [images[:3], images[3:4], images[4:]], shares, 0.1)
    for kind, values in together.items():
        np.testing.assert_allclose(apart[kind], values, rtol=1e-4)


@pytest.mark.parametrize(("merge", "inert", "start"), [(1.0, "prune", 0.0), (0.0, "merge", 1.0)])
def test_one_step_takes_all(
    dense: Checkpoint, digit_images: Tensor, merge: float, inert: str, start: float
) -> None:
    found = find(dense, "ltmp", [digit_images[:8]], Shares(merge, "even"), 0.1)
    assert set(found[inert]) == {start}
    (other,) = set(found) - {inert}
    assert start not in found[other]
