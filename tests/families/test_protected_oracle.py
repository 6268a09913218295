"""Families that go by a class token or have weights of their own, by the rows before the patches.

Against the oracles, with the models of `makers.protected`; those of thresholds and of fixed rates
are in `backbones/test_protected_oracle.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from ltmp_export import families
from ltmp_export.plan.plan import Plan
from ltmp_export.steps.fuse.step import Fuse
from ltmp_export.steps.merge_mask.step import MergeMask
from ltmp_export.steps.merge_matrix.step import MergeMatrix
from ltmp_export.steps.mergence.step import WEIGHTINGS, Mergence
from ltmp_export.steps.patch_merge.step import PatchMerge
from tests.makers import random_vits
from tests.makers.exported import numpy_weights
from tests.makers.protected import FOUR, NONE, ROWS, SMALL, images_of, model_of
from tests.makers.random_vits import Case
from tests.oracles import agreement
from tests.oracles.agreement import agree, batches
from tests.oracles.oracle import OracleResult
from tests.oracles.oracle_evit import run_evit
from tests.oracles.oracle_masks import run_masks
from tests.oracles.oracle_mergence import run_mergence
from tests.oracles.oracle_patchmerger import run_patchmerger
from tests.oracles.oracle_pmvit import run_pmvit

EQUAL = {  # of one colour all patches are alike
    0: Case("none, tied", 81, SMALL | NONE | {"no_embed_class": True}, tied=True),
    1: Case("one, tied", 82, SMALL, tied=True),
    2: Case("distilled, tied", 83, SMALL | {"distilled": True}, tied=True),
    5: Case("five, tied", 84, SMALL | FOUR, tied=True),
}
CLASSIFY = [case for case in ROWS if case.kwargs.get("global_pool") != "avg"]  # P = 1, 2, 5
MASKS = [(hard, restore) for hard in (False, True) for restore in (False, True)]
Judged = tuple[Plan, list[OracleResult]]


def test_all_numbers_of_rows_are_here() -> None:
    assert {model_of(case)[1].prefix for case in ROWS} == {0, 1, 2, 5}
    assert [model_of(case)[1].prefix for case in CLASSIFY] == [1, 2, 5]
    assert [model_of(case)[1].prefix for case in EQUAL.values()] == [*EQUAL]


def evit(case: Case, images: Tensor, rate: float, fused: bool) -> Judged:
    """Both blocks reduce; in the second an earlier fused token is one of those ranked."""
    model, vit = model_of(case)
    weights = numpy_weights(model)
    expected = [
        run_evit(
            weights, image.numpy(), heads=vit.heads, keep_rate=rate, blocks=(0, 1), fused=fused
        )
        for image in images
    ]
    return Plan("evit", ((Fuse(rate, fused),),) * 2), expected


def mergence(case: Case, images: Tensor, rate: float, mean: str) -> Judged:
    model, vit = model_of(case)
    made = families.load("multiscale_mergence").from_stated
    assert made is not None
    placed = made("a test", vit, keep_rate=rate, merge_at=(0, 1), merge_weights=mean)
    weights = numpy_weights(model)
    found = [
        run_mergence(
            weights, image.numpy(), heads=vit.heads, keep_rate=rate, merge_at=(0, 1), mean=mean
        )
        for image in images
    ]
    assert all(sum(one.owned) == vit.tokens for one in found)
    expected = [OracleResult(one.logits, one.counts, one.margin) for one in found]
    steps = tuple(placed.blocks[block] for block in range(2))
    assert all(isinstance(step, Mergence) for (step,) in steps)
    return Plan("multiscale_mergence", steps), expected


def drawn(shape: Sequence[int], seed: int) -> Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def patchmerger(case: Case, images: Tensor, numbers: Sequence[int], scale: float) -> Judged:
    """So many mixtures before the first block, and before the second."""
    model, vit = model_of(case)
    steps = [PatchMerge(f"cluster_layers.{k}", n, scale, 1e-5) for k, n in enumerate(numbers)]
    own = {}
    for step in steps:
        own[f"{step.name}.queries"] = drawn((step.tokens, vit.width), case.seed)
        own[f"{step.name}.norm.weight"] = 1 + 0.3 * drawn((vit.width,), case.seed + 1)
        own[f"{step.name}.norm.bias"] = 0.3 * drawn((vit.width,), case.seed + 2)
    weights = numpy_weights(model) | {name: value.numpy() for name, value in own.items()}
    expected = [
        run_patchmerger(
            weights, image.numpy(), heads=vit.heads, merge_at=(0, 1), scale=scale, pool=vit.pool,
            dialect="deit",
        )
        for image in images
    ]  # fmt: skip
    return Plan("patchmerger", ((), ()), dict(enumerate(steps)), own), expected


def pmvit(case: Case, images: Tensor, numbers: Sequence[int]) -> Judged:
    """Blocks on so many tokens, and back; a third of all tokens pass by."""
    model, vit = model_of(case)
    n, own, before = vit.tokens, {}, {}
    for block, count in enumerate(numbers):
        name = f"blocks.{block}.attn"
        before[block] = MergeMatrix(name, count, n)
        own[f"{name}.merge_matrix"] = drawn((count, n), case.seed + block) / n**0.5
        own[f"{name}.recover_matrix"] = drawn((n, count), case.seed + 9 + block) / count**0.5
        own[f"{name}.token_mask"] = (torch.arange(n) % 3 > 0).float()
    weights = numpy_weights(model) | {name: value.numpy() for name, value in own.items()}
    expected = [
        run_pmvit(weights, image.numpy(), heads=vit.heads, pool=vit.pool) for image in images
    ]
    return Plan("pmvit", ((), ()), before, own), expected


def masks(case: Case, images: Tensor, hard: bool, restore: bool, full: float = 1.0) -> Judged:
    """To four targets, of which few reach the last; with `full` of 0 nothing reaches any."""
    model, vit = model_of(case)
    own = {"ltm.mask0": full * drawn((vit.patches, 4), case.seed).abs()}
    own["ltm.mask0"][:, -1] *= 0.01
    blocks: list[tuple[MergeMask, ...]] = [(), ()]
    for block in (0, 1) if restore else (0,):
        name, first = f"blocks.{block}.ltm", block == 0
        blocks[block] = (
            MergeMask(
                name, "ltm.mask0", vit.patches, 4, first=first, hard=hard, restore=restore
            ),
        )  # fmt: skip
        own[f"{name}.center"] = drawn((vit.width,), case.seed + 1)
        own[f"{name}.step"] = torch.full((1,), 2.0 * full)
    plan = Plan("ltm_transformer", tuple(blocks), parameters=own)
    weights = numpy_weights(model) | {name: value.numpy() for name, value in own.items()}
    counts = plan.counts(vit.tokens, vit.prefix)
    found = [
        run_masks(
            weights, image.numpy(), heads=vit.heads, hard=hard, restore=restore, pool=vit.pool
        )
        for image in images
    ]
    assert full or not any(any(one.reached) for one in found)
    return plan, [OracleResult(one.logits, counts, one.margin) for one in found]


def compare(case: Case, judged: Judged, images: Tensor, every: bool = False) -> None:
    """The reference, and files at batches of 1, 3 and 7, where rounding decides nothing."""
    plan, expected = judged
    model, vit = model_of(case)
    vit.require_possible(plan)
    rows = np.array([every or result.margin > agreement.DECIDED for result in expected])
    assert rows.sum() >= 5
    opset = agreement.OPSETS[case.seed % len(agreement.OPSETS)]
    agree(batches(model, vit, plan, images, opset), expected, rows)
    assert min(result.counts[-1] for result in expected) < vit.tokens
    apart = np.ptp([result.logits for result in expected], axis=0).max()
    assert every or apart > 0.1  # else any answer would do


@pytest.mark.parametrize(("rate", "fused"), [(0.6, True), (0.5, False), (0.05, False)])
@pytest.mark.parametrize("case", CLASSIFY, ids=str)
def test_evit(case: Case, rate: float, fused: bool) -> None:
    """The others fused, gone, and all gone but one."""
    images = images_of(case)
    judged = evit(case, images, rate, fused)
    if rate == 0.05:
        assert judged[1][0].counts == (model_of(case)[1].prefix + 1,) * 2
        judged = Plan("evit", (judged[0].blocks[0], ())), judged[1]  # of one none goes
    compare(case, judged, images)


@pytest.mark.parametrize("mean", WEIGHTINGS)
@pytest.mark.parametrize("case", CLASSIFY, ids=str)
def test_mergence(case: Case, mean: str) -> None:
    """Some merge; and all into one."""
    images = images_of(case)
    for rate, left in ((0.6, (7, 4)), (0.29, (3, 1))):
        judged, prefix = mergence(case, images, rate, mean), model_of(case)[1].prefix
        assert judged[1][0].counts == (prefix + left[0], prefix + left[1])
        compare(case, judged, images)


@pytest.mark.parametrize(("numbers", "scale"), [((5, 3), 0.25), ((1, 1), 1.0)])
@pytest.mark.parametrize("case", ROWS, ids=str)
def test_patchmerger(case: Case, numbers: tuple[int, int], scale: float) -> None:
    images = images_of(case)
    judged = patchmerger(case, images, numbers, scale)
    assert judged[1][0].counts[-1] == model_of(case)[1].prefix + numbers[-1]
    compare(case, judged, images)


@pytest.mark.parametrize("numbers", [(8, 6), (1, 1)])
@pytest.mark.parametrize("case", ROWS, ids=str)
def test_pmvit(case: Case, numbers: tuple[int, int]) -> None:
    images = images_of(case)
    compare(case, pmvit(case, images, numbers), images)


@pytest.mark.parametrize(("hard", "restore"), MASKS)
@pytest.mark.parametrize("case", ROWS, ids=str)
def test_ltm_transformer(case: Case, hard: bool, restore: bool) -> None:
    images = images_of(case)
    compare(case, masks(case, images, hard, restore), images)


@pytest.mark.parametrize(("hard", "restore"), MASKS)
@pytest.mark.parametrize("case", [case for case in ROWS if case.seed != 42], ids=str)
def test_masks_that_nothing_passes(case: Case, hard: bool, restore: bool) -> None:
    """Only the rows before the patches are left; without any, all targets, as they are."""
    images = images_of(case)
    compare(case, masks(case, images, hard, restore, 0.0), images, every=True)


@pytest.mark.parametrize("prefix", EQUAL)
def test_equal_images(prefix: int) -> None:
    """All patches alike: whichever stays, and whatever goes where, the logits are the same."""
    case = EQUAL[prefix]
    images = random_vits.one_colour(model_of(case)[1])
    judged = [
        patchmerger(case, images, (5, 3), 1.0),
        pmvit(case, images, (8, 6)),
        *(masks(case, images, hard, restore) for hard, restore in MASKS),
    ]
    if prefix:
        judged += [evit(case, images, 0.6, fused) for fused in (True, False)]
        judged += [mergence(case, images, 0.6, mean) for mean in WEIGHTINGS]
    for one in judged:
        compare(case, one, images, every=True)
