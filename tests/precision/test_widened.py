"""float64 with each weight cast when it is used is float64 with all of them cast at once."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

from ltmp_export.precision import widened
from ltmp_export.reference import Reference
from tests.makers import random_vits


@pytest.fixture
def weight_by_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widened, "WHOLE", 0)
    monkeypatch.setattr(widened, "LARGE", 2)


@pytest.mark.parametrize("case", random_vits.OPTIONS, ids=lambda case: case.name)
def test_both_ways_compute_the_same(
    case: random_vits.Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, vit = random_vits.build(case)
    images = random_vits.images(vit, case.seed)
    plan = random_vits.middle_plan(model, images, "ltmp", case.seed)
    whole = Reference(model, plan, torch.float64).run(images[0])
    monkeypatch.setattr(widened, "WHOLE", 0)
    monkeypatch.setattr(widened, "LARGE", 2)
    pieces = Reference(model, plan, torch.float64).run(images[0])
    assert whole.logits.dtype == pieces.logits.dtype == torch.float64
    assert torch.equal(whole.logits, pieces.logits)
    assert all(map(torch.equal, whole.tokens, pieces.tokens))
    assert whole.counts == pieces.counts


@pytest.mark.usefixtures("weight_by_weight")
def test_large_weights_are_shared_and_the_model_stays_as_it_was() -> None:
    """What is alive in float64 between two uses is less than the smallest of the large weights."""
    model = nn.Sequential(nn.Linear(64, 256), nn.LayerNorm(256), nn.Linear(256, 64))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wide = widened.widened(model, torch.float64)
    kept = {value.data_ptr() for value in model.parameters()}
    shared = [value for value in wide.parameters() if value.dtype == torch.float32]
    assert len(shared) == 6
    assert {value.data_ptr() for value in shared} <= kept
    assert wide(torch.ones(1, 64, dtype=torch.float64)).dtype == torch.float64
    gc.collect()
    tensors = [found for found in gc.get_objects() if issubclass(type(found), torch.Tensor)]
    alive = [tensor for tensor in tensors if tensor.shape == (256, 64)]
    assert alive
    assert not any(tensor.dtype == torch.float64 for tensor in alive)
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])
