"""Models of made-up weights: the same from the same seed, and with the work that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images import inputs
from ltmp_export.model_file.model import to_onnx
from ltmp_export.plan.work import executed_share
from ltmp_export.reference import Reference, verify_against_timm
from ltmp_export.timing import made_up, real_size
from ltmp_export.timing.real_size import LEARNED, Specimen

NAME = "deit_tiny_patch16_224"
SMALL = {"img_size": 128, "depth": 3, "embed_dim": 64, "num_heads": 2, "num_classes": 10}


@pytest.fixture(scope="module")
def dense() -> Checkpoint:
    return made_up.checkpoint(NAME, **SMALL)


def test_weights_are_those_of_the_seed(dense: Checkpoint) -> None:
    before = torch.get_rng_state()
    again, other = made_up.checkpoint(NAME, **SMALL), made_up.checkpoint(NAME, 1, **SMALL)
    assert torch.equal(torch.get_rng_state(), before)
    own = dense.model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in again.model.state_dict().items())
    assert not torch.equal(own["head.weight"], other.model.state_dict()["head.weight"])
    verify_against_timm(dense.model, dense.geometry)


def test_thresholds_leave_the_share_and_the_file_keeps_to_it(dense: Checkpoint) -> None:
    """The decisions are not a matter of rounding, or the file would take others."""
    images = inputs.synthetic(dense.geometry, 4)
    learned = made_up.at_share(dense, "ltmp", 0.6, images)
    reference = Reference(learned.model, learned.plan)
    counts = [reference.run(torch.from_numpy(pixels)).counts for pixels in images.pixels]
    assert executed_share(dense.geometry, learned.plan, counts) == pytest.approx(0.6, abs=0.02)
    found = real_size._share(learned, to_onnx(learned, opset=17), images)
    assert found == pytest.approx(executed_share(dense.geometry, learned.plan, counts), abs=1e-9)
    assert len({tuple(image) for image in counts}) > 1


def test_scores_are_spread(dense: Checkpoint) -> None:
    """Thresholds differ from block to block, and lie apart from what all tokens would share."""
    learned = made_up.at_share(dense, "ltmp", 0.6, inputs.synthetic(dense.geometry, 4))
    thresholds = learned.plan.thresholds()
    uniform = 1 / dense.vit.tokens
    assert np.max(np.abs(np.array(thresholds["prune"]) / uniform - 1)) > 0.2
    assert all(0.2 < value < 0.995 for value in thresholds["merge"])


def test_a_model_of_real_size_in_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_size, "IMAGES", 3)
    monkeypatch.setattr(real_size, "SIZES", {1: 0.5, 2: 0.0})  # one round at batch 2
    monkeypatch.setattr(real_size, "SECONDS", 1e4)
    monkeypatch.setattr(real_size, "MOST", 2)
    monkeypatch.setattr(real_size, "FEW", 0)  # threads are tried, too
    monkeypatch.setattr("ltmp_export.timing.real_size.session.processor_count", lambda: 1)
    words: list[str] = []
    found = real_size.measure(words.append, Specimen("small", NAME, SMALL))
    assert [(row.model, row.precision, row.timing.batch_size) for row in found.rows] == [
        (model, precision, size)
        for size in (1, 2)
        for precision in ("fp32", "int8")
        for model in ("dense", "m r=13", "ltmp")
    ]
    for row in found.rows:
        assert np.shape(row.timing.samples) == {1: (2, 3), 2: (1, 2)}[row.timing.batch_size]
        assert (row.macs_share == 1) == (row.model == "dense")
    assert 0.4 < next(row.macs_share for row in found.rows if row.model == LEARNED) < 0.6
    assert found.threads == 1
    assert found.speedup(found.rows[0]) == 1
    assert "trying threads: ltmp fp32" in words
