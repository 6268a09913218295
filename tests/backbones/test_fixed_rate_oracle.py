"""Graphs with fixed rates, and the reference, against the slow NumPy oracle.

What a rate comes to in each block is stated here in numbers; the package's own reading of it only
makes the plans that are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.step import Step
from ltmp_export.reference import Reference
from ltmp_export.statements.choices import Choices
from ltmp_export.steps.merge_most.step import MergeMost
from ltmp_export.steps.prune_least.step import PruneLeast
from tests import tolerances
from tests.makers import random_vits
from tests.makers.distilled import distilled
from tests.makers.random_vits import DEEP, EVEN, ODD, TIED, Case, equal_keys, one_colour
from tests.oracles.agreement import (
    OPSETS,
    agree,
    compare,
    decided,
    forms,
    judge,
    of,
    planned,
    referenced,
    shares,
    written,
)

FAMILIES = families.counted()

# --r, and what it means for a model of three blocks
RATES: Mapping[str, tuple[int, ...]] = {
    "1": (1, 1, 1),
    "3": (3, 3, 3),
    "99": (99, 99, 99),
    "0,5,0": (0, 5, 0),
    "4,0,3": (4, 0, 3),
    "4:-1": (8, 4, 0),
    "4:1": (0, 4, 8),
    "4:0.5": (2, 4, 6),
}


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("case", [c for c in random_vits.OPTIONS if c is not DEEP], ids=str)
def test_options(case: Case, turn: int) -> None:
    """Every option of the model, under one family, rate and opset or another."""
    turn += case.seed
    family, text = FAMILIES[turn % len(FAMILIES)], list(RATES)[turn // 2 % len(RATES)]
    _, vit = random_vits.build(case)
    images = random_vits.images(vit, case.seed)
    expected = compare(case, images, family, text, RATES[text], OPSETS[turn % len(OPSETS)])
    assert max(result.counts[-1] for result in expected) < vit.tokens


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text", RATES)
def test_rates(text: str, family: str) -> None:
    case = (EVEN, ODD)[(FAMILIES.index(family) + list(RATES).index(text)) % 2]
    _, vit = random_vits.build(case)
    compare(case, random_vits.images(vit, 100, batch=3), family, text, RATES[text], 17)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("opset", OPSETS)
def test_opsets(opset: int, family: str) -> None:
    _, vit = random_vits.build(DEEP)
    images = random_vits.images(vit, 101, batch=8)
    compare(DEEP, images, family, "6:-0.5", (9, 7, 5, 3), opset)


def test_what_rates_leave() -> None:
    """In plain numbers, for ten tokens: what the oracle counts is what METHOD §1 says."""
    model, vit = random_vits.build(EVEN)
    image = random_vits.images(vit, EVEN.seed, batch=1)
    left = {
        ("m", "3"): (7, 4, 3),  # of four tokens only one source is not the class token
        ("m", "99"): (6, 4, 3),
        ("p", "99"): (6, 4, 3),
        ("p", "4,0,3"): (6, 6, 4),
        ("mp", "99"): (5, 2, 2),  # 4 merge and 1 goes, 2 merge and 1 goes
        ("pm", "99"): (5, 2, 2),  # 1 goes and 4 merge, 2 go and 1 merges
        ("mp", "0,5,0"): (10, 5, 5),
        ("mp", "1"): (9, 8, 7),
    }
    for (family, text), counts in left.items():
        (found,) = judge(model, vit, image, family, RATES[text])
        assert found.counts == counts, (family, text)


@pytest.mark.parametrize("family", ["mp", "pm"])
def test_pruning_sorts_where_it_takes_none(family: str) -> None:
    """With --r 1 all blocks but the first merge one token and prune none."""
    model, vit = random_vits.build(DEEP)
    images = random_vits.images(vit, 102)
    assert shares(family, (1,) * 4) == {"merge": [0, 1, 1, 1], "prune": [1, 0, 0, 0]}
    expected = compare(DEEP, images, family, "1", (1,) * 4, 17)
    steps = planned(family, "1", vit).blocks
    unsorted = Plan(family, tuple(tuple(s for s in block if _count(s)) for block in steps))
    other = referenced("", Reference(model, unsorted, torch.float64), images, 0.0)
    apart = np.abs(other.logits - np.stack([result.logits for result in expected])).max(1)
    assert (apart > 10 * tolerances.RANDOM_EXPORTED).mean() > 0.5


def _count(step: Step) -> int:
    assert isinstance(step, (MergeMost, PruneLeast))
    return step.count


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize("patches", [1, 2, 3])
def test_few_patches(patches: int, pool: str, family: str) -> None:
    """Of three tokens one can go; two are the least there can be."""
    options = {"img_size": (4, 4 * patches), "global_pool": pool, "fc_norm": False}
    case = Case("few_patches", 30 + patches, options)
    _, vit = random_vits.build(case)
    expected = compare(case, random_vits.images(vit, 103), family, "3", (3, 3, 3), 17)
    one_step = patches == 3 and family in ("m", "p")
    assert {result.counts for result in expected} == {(3, 2, 2) if one_step else (2, 2, 2)}


@pytest.mark.parametrize("family", FAMILIES)
def test_one_block(family: str) -> None:
    case = Case("one_block", 34, {"depth": 1, "img_size": (16, 16)})
    _, vit = random_vits.build(case)
    expected = compare(case, random_vits.images(vit, 104), family, "5", (5,), 17)
    assert {result.counts for result in expected} == {(12,)}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", random_vits.POOLED, ids=str)
def test_one_colour(case: Case, family: str) -> None:
    """Images of one colour: tokens differ by their position only."""
    _, vit = random_vits.build(case)
    compare(case, one_colour(vit), family, "3", (3, 3, 3), 17)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_colour_beside_others(family: str) -> None:
    """Without positions all tokens of an image of one colour tie; its neighbours do not care."""
    model, vit = random_vits.build(TIED)
    images = torch.cat([one_colour(vit)[:2], random_vits.images(vit, 105, batch=5)])
    expected = judge(model, vit, images, family, (3, 3, 3))
    rows = decided(expected)
    assert rows[2:].all()
    found = forms(model, vit, planned(family, "3", vit), images, 17)
    agree(found, expected, rows)
    for form in found:
        np.testing.assert_array_equal(form.counts, form.counts[-1:].repeat(7, 0))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", random_vits.POOLED, ids=str)
def test_ties_go_to_the_lowest_row(case: Case, family: str) -> None:
    """Every similarity is exactly 1, and importances tie exactly, until sizes differ."""
    model, vit = equal_keys(case)
    images = random_vits.images(vit, case.seed)
    expected = judge(model, vit, images, family, (3, 0, 0))
    found = forms(model, vit, planned(family, "3,0,0", vit), images, 17)
    agree(found, expected, np.full(len(images), True))


# A distillation token


@pytest.mark.parametrize("image_size", [(8, 8), (8, 16), (8, 24), (24, 24), (24, 32)], ids=str)
@pytest.mark.parametrize("text", ["3", "99", "0,2"])
def test_distilled(tmp_path: Path, image_size: tuple[int, int], text: str) -> None:
    """From three tokens on, of which two are no patches."""
    state = distilled(img_size=image_size).state_dict()
    choices = Choices(family="m", rate=text, num_heads=4)
    checkpoint = written(tmp_path, state, choices, args={"img_size": list(image_size)})
    assert (checkpoint.vit.distilled, checkpoint.vit.image_size) == (True, image_size)
    stated = {"3": (3, 3), "99": (99, 99), "0,2": (0, 2)}[text]
    images = random_vits.images(checkpoint.vit, 106)
    expected = judge(checkpoint.model, checkpoint.vit, images, "m", stated)
    agree(of(checkpoint, images, 16), expected, decided(expected))


# The authors' own models


@pytest.mark.parametrize("family", FAMILIES)
def test_oracle_itself(
    digits: Callable[[str], Checkpoint],
    golden: Mapping[str, NDArray[Any]],
    digit_images: Tensor,
    family: str,
) -> None:
    """What judges the tool elsewhere agrees with the authors, and r is divided as they do it."""
    checkpoint, taken = digits(family), shares(family, (8,) * 6)
    for kind in families.load(family).counts:
        assert taken[kind] == golden[f"{family}_r_{kind}"].tolist()
    expected = judge(checkpoint.model, checkpoint.vit, digit_images[:5], family, (8,) * 6)
    for row in np.flatnonzero(decided(expected)):
        result = expected[row]
        assert result.counts == tuple(golden[f"{family}_counts"][row])
        np.testing.assert_allclose(
            result.logits, golden[f"{family}_logits"][row], rtol=0, atol=tolerances.GOLDEN_ORACLE
        )
