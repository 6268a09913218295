"""Time as a function of token counts, in plain numbers and as something to differentiate."""

from __future__ import annotations

import pytest
import torch

from ltmp_export.plan.plan import dense_plan
from ltmp_export.plan.times import Load, TimeModel, linear_work, loads
from ltmp_export.plan.work import macs
from tests.makers import random_vits
from tests.makers.trainers import CASE

MODEL = TimeModel(fixed=1.0, received=0.1, squared=0.01, kept=0.2, dense=10.0)


def test_of_blocks_by_hand() -> None:
    given = [Load(5.0, 26.0, 4.0), Load(4.0, 16.0, 2.0)]
    by_hand = 1.0 + 0.1 * 9 + 0.01 * 42 + 0.2 * 6
    assert MODEL.milliseconds(given) == pytest.approx(by_hand)
    assert MODEL.share(given) == pytest.approx(by_hand / 10)


def test_of_tensors_has_a_gradient() -> None:
    kept = torch.tensor([4.0, 2.0], requires_grad=True)
    given = [Load(5.0, 25.0, kept[0]), Load(kept[0], kept[0] ** 2, kept[1])]
    MODEL.milliseconds(given).backward()
    assert kept.grad is not None
    assert kept.grad.tolist() == pytest.approx([0.2 + 0.1 + 0.01 * 2 * 4, 0.2])


def test_a_batch_is_padded_to_its_longest_image() -> None:
    """And the last one wraps around to the first images."""
    _, vit = random_vits.build(CASE)
    counts = [[9] * vit.depth, [5] * vit.depth, [3] * vit.depth]
    plan = dense_plan(vit.depth)
    first, second, *_ = loads(vit, plan, counts, 2)
    assert first == Load(vit.tokens, vit.tokens**2, pytest.approx(17 / 3))
    assert second == Load(pytest.approx(17 / 3), (81 + 81) / 2, pytest.approx(17 / 3))
    assert loads(vit, plan, counts, 1)[1].squared == pytest.approx((81 + 25 + 9) / 3)


def test_linear_layers_are_those_whose_work_is_counted() -> None:
    _, vit = random_vits.build(CASE)
    attention, mlp = linear_work(vit)
    counts = [vit.tokens] * vit.depth
    fewer = [*counts[:-1], vit.tokens - 1]
    assert macs(vit, counts) - macs(vit, fewer) == mlp
    assert attention == 4 * vit.width * vit.heads * vit.head_width
