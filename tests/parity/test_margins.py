"""How near the decisions of a checkpoint are to their thresholds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images import inputs
from ltmp_export.parity.margins import LIMITS, QUANTILES, margins
from ltmp_export.plan.plan import Plan
from ltmp_export.reference import Reference
from ltmp_export.reports import to_json
from ltmp_export.steps.prune.step import Prune
from ltmp_export.steps.tokens import Matching

Digits = Callable[[str], Checkpoint]


@pytest.fixture(scope="module")
def images() -> inputs.Images:
    return inputs.embedded_digits().select(8)


@pytest.mark.parametrize("family", families.learned())
def test_against_a_count_token_by_token(digits: Digits, images: inputs.Images, family: str) -> None:
    checkpoint = digits(family)
    found = margins(checkpoint, images)
    assert found.count == 8
    reference = Reference(checkpoint.model, checkpoint.plan, torch.float64)
    near: dict[tuple[int, str], list[list[float]]] = {}
    for number, pixels in enumerate(images.pixels):
        for block, decisions in enumerate(reference.run(torch.from_numpy(pixels)).decisions):
            for decision in decisions:
                merging = isinstance(decision, Matching)
                kind = "merge" if merging else "prune"
                rows = near.setdefault((block, kind), [[] for _ in images.names])
                rows[number] = [abs(s - decision.threshold) for s in decision.score[1:].tolist()]
                if isinstance(decision, Matching):
                    rows = near.setdefault((block, "partner"), [[] for _ in images.names])
                    for source in np.flatnonzero(decision.chosen):
                        first, second = decision.similarity[source].sort(descending=True)[0][:2]
                        rows[number].append(float(first - second))
    assert {(s.block, s.step) for s in found.steps} == set(near)
    for step in found.steps:
        distances = near[step.block, step.step]
        flat = [d for image in distances for d in image]
        assert step.decisions == len(flat)
        if flat:
            np.testing.assert_allclose(step.quantiles, np.quantile(flat, QUANTILES), rtol=1e-9)
        for limit, share in zip(LIMITS, step.closer, strict=True):
            assert share == sum(min(image, default=1) < limit for image in distances) / 8
    everything = [[min(near[key][i], default=1) for key in near] for i in range(8)]
    expected = tuple(sum(min(image) < limit for image in everything) / 8 for limit in LIMITS)
    assert found.closer == expected


def test_a_decision_on_its_threshold_is_at_risk(digits: Digits, images: inputs.Images) -> None:
    checkpoint = digits("ltp")
    reference = Reference(checkpoint.model, checkpoint.plan, torch.float64)
    score = float(reference.run(torch.from_numpy(images.pixels[0])).decisions[0][0].score[9])
    plan = Plan("ltp", ((Prune(score * (1 + 1e-4)),), *checkpoint.plan.blocks[1:]))
    found = margins(dataclasses.replace(checkpoint, plan=plan), images.select(1))
    assert found.at_risk == {"float32": 0.0, "float16": 1.0}
    assert found.steps[0].quantiles[0] == pytest.approx(score * 1e-4)
    assert found.steps[0].closer == (0.0, *(float(score * 1e-4 < x) for x in LIMITS[1:]))


def test_json_is_strict_where_nothing_was_decided(digits: Digits, images: inputs.Images) -> None:
    """Nobody merges, so nobody has a partner to lead with."""
    checkpoint = digits("ltmp")  # block 0 has the merge threshold 1
    document = json.loads(to_json(margins(checkpoint, images.select(1)).to_json()))
    partner = next(s for s in document["steps"] if s["step"] == "partner")
    assert partner["decisions"] == 0
    assert partner["quantiles"] == [None] * 3
