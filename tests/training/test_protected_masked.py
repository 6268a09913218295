"""The masked forms where other rows than one class token are protected."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from ltmp_export import families
from ltmp_export.plan.vit import Vit
from ltmp_export.reference import Reference
from ltmp_export.training.forms import ALIGNED, FORMS, PUBLISHED, Form, candidates
from ltmp_export.training.model import MaskedVit
from tests import tolerances
from tests.makers import random_vits
from tests.makers.random_vits import Case

SHAPE = {"depth": 2, "img_size": (16, 12)}
CASES = {
    0: Case("none", 61, SHAPE | {"class_token": False, "global_pool": "avg"}),
    2: Case("distilled", 62, SHAPE | {"distilled": True}),
    5: Case("registers", 63, SHAPE | {"reg_tokens": 4, "no_embed_class": True}),
}


@cache
def model_of(rows: int) -> tuple[VisionTransformer, Vit]:
    return random_vits.build(CASES[rows])


def plans(rows: int, family: str) -> list[dict[str, list[float]]]:
    """Amid the scores; everything goes; and nothing but by pruning, all at once."""
    model, vit = model_of(rows)
    middle = random_vits.middle_plan(model, random_vits.images(vit, rows), family, rows)
    return [
        middle.thresholds(),
        {"merge": [0.0, 0.0], "prune": [0.0, 1.0]},
        {"merge": [1.0, 1.0], "prune": [1.0, 0.0]},
    ]


@pytest.mark.parametrize("family", families.learned())
@pytest.mark.parametrize("rows", CASES)
def test_aligned_decides_as_the_reference(rows: int, family: str) -> None:
    model, vit = model_of(rows)
    images = random_vits.images(vit, rows, 3)
    for values in plans(rows, family):
        plan = families.load(family).freeze(values)
        traces = [Reference(model, plan).run(image) for image in images]
        masked = MaskedVit(model, families.load(family), values, ALIGNED).eval()
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                output = masked(images)
            assert output.counts.tolist() == [list(trace.counts) for trace in traces]
            wanted = torch.stack([trace.logits for trace in traces])
            torch.testing.assert_close(
                output.logits.detach(), wanted, rtol=0, atol=tolerances.MASKED
            )


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
@pytest.mark.parametrize("rows", CASES)
def test_what_is_protected_lives_and_every_threshold_learns(rows: int, form: Form) -> None:
    """Also where all else goes; without protected rows the most important token does."""
    model, vit = model_of(rows)
    images = random_vits.images(vit, rows, 3)
    middle, *others = plans(rows, "ltmp")
    masked = MaskedVit(model, families.load("ltmp"), middle, form).train()
    output = masked(images)
    (output.logits.square().sum() + sum(mask.sum() for mask in output.alive)).backward()
    for values in masked.thresholds.values():
        assert values.grad is not None
        assert values.grad.isfinite().all()
        assert values.grad.any()
    for values in (middle, *others):
        output = MaskedVit(model, families.load("ltmp"), values, form).eval()(images)
        for mask in output.alive:
            assert (mask[:, :rows] == 1).all()
            assert (mask.sum(1) >= max(rows, 1)).all()
    if others[0]["prune"][1] == 1.0:
        last = MaskedVit(model, families.load("ltmp"), others[0], form).eval()(images).alive[-1]
        assert (last.sum(1) == max(rows, 1)).all()


def test_published_takes_the_same_tokens_in_the_first_block() -> None:
    """There all rows live, and both forms are the deployed one."""
    for rows in CASES:
        model, vit = model_of(rows)
        images = random_vits.images(vit, rows, 3)
        values = plans(rows, "ltmp")[0]
        outputs = [
            MaskedVit(model, families.load("ltmp"), values, form).eval()(images)
            for form in (ALIGNED, PUBLISHED)
        ]
        assert torch.equal(*(output.counts[:, 0] for output in outputs))


def test_candidates_are_not_protected() -> None:
    """Scores that a threshold is put amid: of living tokens, and sources, behind the rows."""
    for rows in CASES:
        model, vit = model_of(rows)
        masked = MaskedVit(model, families.load("ltmp"), plans(rows, "ltmp")[0], ALIGNED).eval()
        tokens = masked.attend(0, masked.embed(random_vits.images(vit, rows, 3)))
        assert len(candidates("prune", tokens)) == 3 * vit.patches
        assert len(candidates("merge", tokens)) == 3 * (vit.patches // 2)
        assert all(candidates(kind, tokens).isfinite().all() for kind in ("merge", "prune"))
