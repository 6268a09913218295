"""The exported graph in onnxruntime, on whatever its interface allows (METHOD §1 and §3)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ltmp_export import families
from ltmp_export.graph.builder import OLDEST_OPSET
from ltmp_export.parity import taps
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.vit import Vit
from ltmp_export.runtimes.opsets import newest_opset
from tests.backbones.test_oracle import frozen, judge
from tests.makers import random_vits
from tests.makers.adjustable import Adjustable, margin, with_thresholds
from tests.makers.exported import Exported, Result
from tests.makers.random_vits import Case
from tests.tolerances import RANDOM_DECIDED, RANDOM_EXPORTED, ROW_ALONE

OPSETS = (OLDEST_OPSET, 17, 18, 20, newest_opset())  # where operators have other forms
BATCHES = (0, 1, 2, 31, 257)
POOLS = {"token": random_vits.ODD, "avg": random_vits.POOLED[2]}  # of 13 tokens, and of 10
DRAWN = 24  # vectors of thresholds for a setting
ORDINARY = 22  # images of a setting, the first; then the extreme ones
PLACES, BROKEN = (slice(None), slice(77, 78)), (np.nan, np.inf, -np.inf)  # all of an image, or one

each_family = pytest.mark.parametrize("family", families.learned())
each_pool = pytest.mark.parametrize("pool", POOLS)


@dataclass(frozen=True)
class Setting:
    """A random ViT, a plan amid its scores; of each image what the oracle says, and if surely."""

    model: VisionTransformer
    vit: Vit
    plan: Plan
    images: Tensor
    expected: Result
    decided: NDArray[np.bool_]


@functools.cache
def setting(pool: str, family: str) -> Setting:
    model, vit = random_vits.build(POOLS[pool])
    ordinary = random_vits.images(vit, POOLS[pool].seed, ORDINARY)
    plan = random_vits.middle_plan(model, ordinary, family, POOLS[pool].seed)
    images = torch.cat([ordinary, extremes(vit)])
    return Setting(model, vit, plan, images, *judged(model, vit, plan, images))


@functools.cache
def exported(pool: str, family: str, opset: int, batch_size: int | None = None) -> Exported:
    s = setting(pool, family)
    return Exported(s.vit, s.plan, s.model, opset, batch_size)


def extremes(vit: Vit) -> Tensor:
    """[9, …]: black, white, grey, constants of ±1e4, noise 1e4 times as strong."""
    levels = torch.tensor([-2.1, 2.6, 0.0, 1e4, -1e4])[:, None, None, None]
    noise = random_vits.images(vit, 7, batch=2)
    return torch.cat([levels.expand(-1, *vit.input_size), noise * 1e4, noise * -1e4])


def judged(
    model: VisionTransformer, vit: Vit, plan: Plan, images: Tensor
) -> tuple[Result, NDArray[np.bool_]]:
    rows = judge(model, vit, plan, images)
    result = Result(np.stack([r.logits for r in rows]), np.array([r.counts for r in rows]))
    return result, np.array([r.margin for r in rows]) > RANDOM_DECIDED


def require_sane(result: Result, vit: Vit, batch: int, broken: Sequence[int] = ()) -> None:
    """Shapes; counts in [1, N] that never grow; logits finite in all rows but the broken ones."""
    assert result.logits.shape == (batch, vit.classes)
    assert result.counts.shape == (batch, vit.depth)
    assert (result.counts >= 1).all()
    assert (np.diff(result.counts, prepend=vit.patches + 1) <= 0).all()
    assert np.isfinite(np.delete(result.logits, list(broken), axis=0)).all()
    assert np.isnan(result.logits[list(broken)]).all()


def require_same(result: Result, expected: Result, tolerance: float = ROW_ALONE) -> None:
    np.testing.assert_array_equal(result.counts, expected.counts)
    np.testing.assert_allclose(result.logits, expected.logits, rtol=0, atol=tolerance)


def rows_of(result: Result, rows: NDArray[Any] | slice) -> Result:
    return Result(result.logits[rows], result.counts[rows])


@pytest.mark.parametrize(
    ("pool", "family", "opset"),
    [
        (pool, family, opset)
        for turn, (pool, family) in enumerate(itertools.product(POOLS, families.learned()))
        for opset in (OPSETS[(0, -1)[(turn + turn // 4) % 2]], OPSETS[1 + turn % 3])
    ],
)
def test_any_batch_at_any_opset(pool: str, family: str, opset: int) -> None:
    """Ordinary and extreme images side by side: each row is the image alone, and the oracle's."""
    s = setting(pool, family)
    assert s.decided[:ORDINARY].all()
    alone = exported(pool, family, opset, batch_size=1).run_in_batches(s.images, 1)
    for batch in BATCHES:
        image = np.arange(batch) % len(s.images)  # of each row
        result = exported(pool, family, opset).run(s.images[image])
        require_sane(result, s.vit, batch)
        certain, image = rows_of(result, s.decided[image]), image[s.decided[image]]
        require_same(certain, rows_of(alone, image))
        require_same(certain, rows_of(s.expected, image), RANDOM_EXPORTED)


@pytest.mark.parametrize("case", random_vits.OPTIONS, ids=str)
def test_extreme_images(case: Case) -> None:
    """Every option of the model; the images among their like, and beside ordinary ones."""
    model, vit = random_vits.build(case)
    images = torch.cat([extremes(vit), random_vits.images(vit, case.seed, batch=2)])
    for number, family in enumerate(families.learned()):
        plan = frozen(family, vit.depth, 0.5, 0.04)
        expected, decided = judged(model, vit, plan, images)
        assert decided.sum() >= 5
        session = Exported(vit, plan, model, OPSETS[(case.seed + number) % len(OPSETS)])
        for batch in (9, 11):
            result = session.run(images[:batch])
            require_sane(result, vit, batch)
            rows = np.flatnonzero(decided[:batch])
            require_same(rows_of(result, rows), rows_of(expected, rows), RANDOM_EXPORTED)


@pytest.mark.parametrize(
    ("pool", "family", "opset"),
    [
        (pool, family, (16, 17, OPSETS[-1])[turn % 3])
        for turn, (pool, family) in enumerate(itertools.product(POOLS, families.learned()))
    ],
)
def test_broken_image(pool: str, family: str, opset: int) -> None:
    """It spoils its own row only.

    The others are those of the batch without it, or with an ordinary image in its place, up to the
    rounding of products over another number of slots; where both have as many tokens, to the bit.
    """
    s, model = setting(pool, family), exported(pool, family, opset)
    single = exported(pool, family, opset, batch_size=1)
    # Class token only, or all tokens if the family does not prune: as many for every image.
    as_many = Exported(s.vit, frozen(family, s.vit.depth, 1.0, 1.0), s.model, opset)
    images = s.images[:7]
    whole, exact = model.run(images), as_many.run(images)
    for place, value, position in itertools.product(PLACES, BROKEN, (0, 3, 6)):
        spoiled, others = images.clone(), np.arange(7) != position
        spoiled[position].view(-1)[place] = value
        result, same = model.run(spoiled), as_many.run(spoiled)
        require_sane(result, s.vit, 7, [position])
        require_same(rows_of(result, others), rows_of(whole, others))
        require_same(rows_of(result, others), model.run(images[others]))
        np.testing.assert_array_equal(same.counts, exact.counts)
        np.testing.assert_array_equal(same.logits[others], exact.logits[others])
        only = spoiled[[position] * 3]
        require_sane(model.run(only), s.vit, 3, range(3))
        require_sane(single.run(only[:1]), s.vit, 1, [0])


@pytest.mark.parametrize("prune", [0.0, 1.0])
@each_family
@each_pool
def test_all_that_can_go_goes(pool: str, family: str, prune: float) -> None:
    """Everything merges in every block, or all but the class token is pruned in block 0."""
    model, vit = random_vits.build(POOLS[pool])
    for _, bias in random_vits.key_layers(model, vit):
        bias += 3.0  # all keys lean one way, so that all similarities are above 0
    images = random_vits.images(vit, 3, batch=31)
    plan = frozen(family, vit.depth, 0.0, [prune] + [0.0] * (vit.depth - 1))
    left = {"token": [7, 4, 3], "avg": [6, 4, 3]}[pool]  # the odd rows and the class token
    if "merge" not in plan.thresholds():
        left = [vit.patches + 1] * vit.depth
    if prune and "prune" in plan.thresholds():
        left = [1] * vit.depth
    expected, decided = judged(model, vit, plan, images[:9])
    assert decided.all()
    for opset in (OPSETS[0], OPSETS[-1]):
        batched, single = (Exported(vit, plan, model, opset, size) for size in (None, 1))
        for result in (batched.run(images), single.run_in_batches(images, 1)):
            require_sane(result, vit, 31)
            np.testing.assert_array_equal(result.counts, [left] * 31)
            require_same(rows_of(result, slice(9)), expected, RANDOM_EXPORTED)
        require_sane(batched.run(images[:0]), vit, 0)


@each_family
@each_pool
def test_any_thresholds(pool: str, family: str) -> None:
    """192 vectors in all: each image of a batch is the image alone, and of some the oracle's."""
    s = setting(pool, family)
    images = s.images[2:ORDINARY:6]
    batched, single = (Adjustable(s.vit, s.plan, s.model, size) for size in (None, 1))
    rng, compared, certain = np.random.default_rng(5), 0, 0
    for number in range(DRAWN):
        drawn = batched.draw(rng, images)
        result, records = batched.run(images, drawn)
        require_sane(result, s.vit, len(images))
        for row, record in enumerate(records):
            alone, (own,) = single.run(images[row : row + 1], drawn)
            require_sane(alone, s.vit, 1)
            assert (*record.counts, *own.counts) == (*result.counts[row], *alone.counts[0])
            if min(margin(record, drawn), margin(own, drawn)) > RANDOM_DECIDED:
                assert taps.digest(record.choices()) == taps.digest(own.choices())
                require_same(rows_of(result, slice(row, row + 1)), alone)
                compared += 1
        if number < 3:
            require_same(batched.run_fixed(images, drawn), result, 0.0)
        if number < DRAWN // 2:
            expected, decided = judged(s.model, s.vit, with_thresholds(s.plan, drawn), images)
            certain += decided.sum()
            require_same(rows_of(result, decided), rows_of(expected, decided), RANDOM_EXPORTED)
    assert min(compared / DRAWN, certain / (DRAWN // 2)) > len(images) / 2


# What is fed for [batch, 3, 16, 12] float32, and what onnxruntime says of it.
SHAPES = {
    (2, 3, 15, 12): "index: 2 Got: 15 Expected: 16",
    (2, 3, 16, 16): "index: 3 Got: 16 Expected: 12",
    (2, 3, 0, 12): "index: 2 Got: 0 Expected: 16",
    (2, 1, 16, 12): "index: 1 Got: 1 Expected: 3",
    (2, 16, 12, 3): "index: 3 Got: 3 Expected: 12",
    (3, 16, 12): "Invalid rank for input: images Got: 3 Expected: 4",
    (1, 2, 3, 16, 12): "Invalid rank for input: images Got: 5 Expected: 4",
}
BATCH_SHAPES = {(n, 3, 16, 12): f"index: 0 Got: {n} Expected: 1" for n in BATCHES if n != 1}
TYPES = {np.float64: "double", np.float16: "float16", np.uint8: "uint8"}


@pytest.mark.parametrize("opset", [OPSETS[0], OPSETS[-1]])
@each_family
def test_wrong_input_is_onnxruntimes_own_error(family: str, opset: int) -> None:
    """Also another batch where the graph is for single images; the session goes on after each."""
    image = setting("token", family).images[:1]
    for batch_size, shapes in ((None, SHAPES), (1, SHAPES | BATCH_SHAPES)):
        model = exported("token", family, opset, batch_size)
        before = model.run(image)
        wrong = [(np.zeros(shape, np.float32), "images", says) for shape, says in shapes.items()]
        for kind, name in TYPES.items():
            wrong.append((image.numpy().astype(kind), name, "expected: (tensor(float))"))
        for images, *says in wrong:
            with pytest.raises(InvalidArgument) as error:
                model.session.run(None, {"images": images})
            for words in ("INVALID_ARGUMENT", *says):
                assert words in str(error.value)
        np.testing.assert_array_equal(model.run(image).logits, before.logits)
