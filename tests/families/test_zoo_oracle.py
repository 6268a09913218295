"""K-Medoids and ATS of the zoo on random ViTs, against an oracle written from METHOD §1 alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ltmp_export.plan.plan import Plan
from ltmp_export.steps.medoids.step import Medoids
from ltmp_export.steps.sample.step import Sample
from tests.makers import random_vits
from tests.makers.exported import numpy_weights
from tests.makers.random_vits import Case
from tests.oracles import agreement
from tests.oracles.oracle_zoo import run_zoo

CASE = Case("24 patches", 3, {"img_size": (16, 24)})
PLANS: dict[str, tuple[Plan, dict[str, Any]]] = {
    "kmedoids": (
        Plan("kmedoids", ((),) * 3, {1: Medoids(11, 3), 2: Medoids(5, 1)}),
        {"before": {1: (11, 3), 2: (5, 1)}},
    ),
    "ats": (Plan("ats", ((), (Sample(16),), (Sample(8),))), {"within": {1: 16, 2: 8}}),
}


@pytest.mark.parametrize("family", PLANS)
def test_every_form_is_the_oracle(family: str) -> None:
    (model, vit), (plan, said) = random_vits.build(CASE), PLANS[family]
    images = torch.randn(7, 3, 16, 24, generator=torch.Generator().manual_seed(5))
    weights = numpy_weights(model)
    expected = [
        run_zoo(
            weights, image.numpy(), heads=vit.heads, eps=vit.norm_eps, activation=vit.activation,
            **said,
        )
        for image in images
    ]  # fmt: skip
    rows = agreement.decided(expected)
    for opset in agreement.OPSETS[::3]:
        found = agreement.forms(model, vit, plan, images, opset)
        agreement.agree(found, expected, rows)
