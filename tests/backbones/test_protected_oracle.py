"""Any number of protected rows, in families with thresholds and of fixed rates, against the oracle.

Small models of two blocks, each built once. Seven images: five of noise, and two of one colour.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from ltmp_export import families
from ltmp_export.plan.plan import Plan
from tests.backbones.test_oracle import judge as judge_learned
from tests.makers import random_vits
from tests.makers.protected import EQUAL, ROWS, images_of, model_of
from tests.makers.random_vits import Case
from tests.oracles import agreement
from tests.oracles.agreement import agree, batches, judge, judge_budget, planned
from tests.oracles.oracle import OracleResult
from tests.oracles.oracle_static import BudgetResult

LEARNED, COUNTED = families.learned(), families.counted()


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
    agree(batches(*model_of(case), plan, images_of(case), opset), expected, rows)
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
    agree(batches(model, vit, plan, images, 17), expected, np.full(len(images), True))
