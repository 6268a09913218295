"""Any number of protected rows, in families with thresholds and of fixed rates, against the oracle.

Small models of two blocks, each built once. Seven images: five of noise, and two of one colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ltmp_export import families
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.vit import Vit
from ltmp_export.reference import Reference
from tests import tolerances
from tests.backbones.test_oracle import judge as judge_learned
from tests.makers import random_vits
from tests.makers.exported import Exported
from tests.makers.random_vits import Case
from tests.oracles import agreement
from tests.oracles.agreement import Form, agree, judge, judge_budget, planned
from tests.oracles.oracle import OracleResult
from tests.oracles.oracle_static import BudgetResult

LEARNED, COUNTED = families.learned(), families.counted()
SMALL = {"depth": 2, "img_size": (16, 12)}  # 12 patches
NONE = {"class_token": False, "global_pool": "avg"}
FOUR = {"reg_tokens": 4, "no_embed_class": True}

ROWS = (
    Case("no row", 41, SMALL | NONE),
    Case("no row, odd", 42, SMALL | NONE | {"img_size": (12, 12), "fc_norm": False}),
    Case("one", 43, SMALL),
    Case("two, distilled", 44, SMALL | {"distilled": True}),
    Case("two, averages", 45, SMALL | {"reg_tokens": 1, "global_pool": "avg"}),
    Case("five", 46, SMALL | FOUR),
    Case("five, no class token", 47, SMALL | NONE | FOUR | {"reg_tokens": 5}),
)
EQUAL = (  # of one colour all patches are alike
    Case("no row, tied", 48, SMALL | NONE | {"no_embed_class": True}, tied=True),
    Case("five, tied", 49, SMALL | FOUR, tied=True),
)


@cache
def model_of(case: Case) -> tuple[VisionTransformer, Vit]:
    return random_vits.build(case)


@cache
def images_of(case: Case) -> Tensor:
    vit = model_of(case)[1]
    return torch.cat([random_vits.images(vit, case.seed), random_vits.one_colour(vit)[1:3]])


def forms(case: Case, plan: Plan, images: Tensor, opset: int) -> list[Form]:
    """Batches of seven and three, single images, and the reference in float64."""
    model, vit = model_of(case)
    batches, single = (Exported(vit, plan, model, opset, size) for size in (None, 1))
    reference = Reference(model, plan, torch.float64)
    return [
        agreement.exported("batch of seven", batches, images, 7),
        agreement.exported("batches of three", batches, images, 3),
        agreement.exported("single images", single, images, 1),
        agreement.referenced("reference", reference, images, tolerances.RANDOM_REFERENCE_64),
    ]


def compare(
    case: Case,
    plan: Plan,
    expected: Sequence[OracleResult] | Sequence[BudgetResult],
    opset: int,
    least: int = 5,
) -> NDArray[np.int64]:
    """All forms against the oracle, in the rows that rounding cannot decide otherwise; counts."""
    rows = np.array([result.margin > agreement.DECIDED for result in expected])
    assert rows.sum() >= least
    agree(forms(case, plan, images_of(case), opset), expected, rows)
    return np.array([result.counts for result in expected])


@pytest.mark.parametrize("family", LEARNED)
@pytest.mark.parametrize("case", ROWS, ids=str)
def test_thresholds(case: Case, family: str) -> None:
    """Amid the scores, so that images differ; a budget; above everything: P rows stay, or one."""
    model, vit = model_of(case)
    images = images_of(case)
    plan = random_vits.middle_plan(model, images, family, case.seed)
    opset = agreement.OPSETS[case.seed % len(agreement.OPSETS)]
    counts = compare(case, plan, judge_learned(model, vit, plan, images), opset)
    assert len(np.unique(counts, axis=0)) > 1
    assert (counts >= max(vit.prefix, 1)).all()
    free = np.maximum(counts.max(0) - 1, vit.prefix + 2).tolist()
    keep = np.minimum.accumulate(free).tolist()
    budget = judge_budget(model, vit, images, plan, keep)
    assert sum(map(sum, (result.overflow for result in budget)))
    compare(case, plan.within(keep), budget, 17)
    all_go = families.load(family).freeze({"merge": [0.9, 0.0], "prune": [0.0, 1.0]})
    counts = compare(case, all_go, judge_learned(model, vit, all_go, images), 17)
    if "prune" in families.load(family).scalars:
        np.testing.assert_array_equal(counts[:, 1], max(vit.prefix, 1))


@pytest.mark.parametrize("family", COUNTED)
@pytest.mark.parametrize("case", ROWS, ids=str)
def test_fixed_rates(case: Case, family: str) -> None:
    """A rate that leaves some, and one that takes all that can go."""
    model, vit = model_of(case)
    for text, stated in (("3,2", (3, 2)), ("99", (99, 99))):
        expected = judge(model, vit, images_of(case), family, stated)
        counts = compare(case, planned(family, text, vit), expected, 16)
        assert (counts[:, -1] >= vit.prefix).all()
    if family == "m":
        left = vit.patches - vit.patches // 2
        np.testing.assert_array_equal(counts[:, 0], vit.prefix + left)


@pytest.mark.parametrize("family", ["ltmp", "ltp", "m", "pm"])
@pytest.mark.parametrize("case", EQUAL, ids=str)
def test_equal_images(case: Case, family: str) -> None:
    """All patches alike: of equal ones the lowest; whichever survives, the logits are the same."""
    model, vit = model_of(case)
    images = random_vits.one_colour(vit)
    if family in LEARNED:
        plan = families.load(family).freeze({"merge": [0.5, 1.0], "prune": [0.0, 1.0]})
        expected = judge_learned(model, vit, plan, images)
    else:
        plan, expected = planned(family, "3,2", vit), judge(model, vit, images, family, (3, 2))
    agree(forms(case, plan, images, 17), expected, np.full(len(images), True))
