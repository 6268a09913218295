"""Static graphs within a budget, and the reference, against the slow NumPy oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ltmp_export import families
from ltmp_export.reference import Reference
from tests.makers import random_vits
from tests.makers.random_vits import DEEP, Case
from tests.oracles.agreement import OPSETS, agree, decided, forms, judge_budget, referenced

LEARNED = families.learned()


def budgets(counts: NDArray[np.int64], tokens: int) -> dict[str, list[int]]:
    """Budgets by what the images [B, depth] would have without one."""
    most, least = counts.max(0), counts.min(0)
    one_less = [tokens, *most[1:]]
    one_less[0] = max(3, int(most[0]) - 1)
    wanted = {
        "ample": [tokens] * len(most),
        "all fit": most.tolist(),
        "one token less": one_less,
        "tight": (least - 1).tolist(),
        "three": [3] * len(most),
    }
    falling = {name: np.minimum.accumulate(keep) for name, keep in wanted.items()}
    return {name: keep.clip(min=3).tolist() for name, keep in falling.items()}


BUDGETS = ("ample", "all fit", "one token less", "tight", "three")


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("case", random_vits.OPTIONS, ids=str)
def test_budgets(case: Case, turn: int) -> None:
    """Thresholds amid the scores, so that images differ in counts and so in what is dropped."""
    turn += case.seed
    family, name = LEARNED[turn % len(LEARNED)], BUDGETS[turn % len(BUDGETS)]
    model, vit = random_vits.build(case)
    images = random_vits.images(vit, case.seed)
    plan = random_vits.middle_plan(model, images, family, case.seed)
    free = referenced("free", Reference(model, plan, torch.float64), images, 0.0)
    keep = budgets(free.counts, vit.tokens)[name]
    expected = judge_budget(model, vit, images, plan, keep)
    found = forms(model, vit, plan.within(keep), images, OPSETS[turn % len(OPSETS)])
    agree(found, expected, decided(expected))
    dropped = np.array([result.overflow for result in expected])
    if name in ("ample", "all fit"):
        assert not dropped.any()
        np.testing.assert_array_equal([result.counts for result in expected], free.counts)
    else:
        assert dropped.any()


@pytest.mark.parametrize("family", ["ltm", "ltpm"])
@pytest.mark.parametrize("name", BUDGETS)
def test_every_budget(name: str, family: str) -> None:
    model, vit = random_vits.build(DEEP)
    images = random_vits.images(vit, DEEP.seed)
    plan = random_vits.middle_plan(model, images, family, DEEP.seed)
    free = referenced("free", Reference(model, plan, torch.float64), images, 0.0)
    keep = budgets(free.counts, vit.tokens)[name]
    expected = judge_budget(model, vit, images, plan, keep)
    agree(forms(model, vit, plan.within(keep), images, 17), expected, decided(expected))
    if name == "one token less":
        in_first = np.array([result.overflow[0] for result in expected])
        np.testing.assert_array_equal(in_first, free.counts[:, 0] == free.counts[:, 0].max())
