"""Right files on many pictures: whatever rounding flips must be recognised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.images import inputs
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from tests.makers import examples
from tests.makers.make_checkpoint import make_checkpoint

BATCHES = (1, 2, 7, 16)


def alarms(checkpoint: Checkpoint, samples: int) -> int:
    """Images with a borderline decision; anything worse is an error."""
    images = inputs.synthetic(checkpoint.vit, samples, seed=7)
    model = to_onnx(checkpoint, opset=17)
    found = compare.compare(model, checkpoint, images, batch_sizes=BATCHES)
    assert found.verdict in ("equal", "borderline"), found.headline()
    assert len(found.comparisons) == samples * (len(BATCHES) + 1)
    return len({c.image for c in found.of("borderline")})


def test_digits(digits: Callable[[str], Checkpoint]) -> None:
    alarms(digits("ltmp"), 60)


@pytest.mark.parametrize("family", sorted({*families.names()} - {*examples.LIGHT}))
def test_three_blocks(shallow_digits: Callable[[str], Checkpoint], family: str) -> None:
    alarms(shallow_digits(family), 16)


@pytest.mark.slow
def test_deit_small(tmp_path: Path) -> None:
    path = tmp_path / "deit_small.pth.tar"
    make_checkpoint(path, "deit_small_patch16_224", mac_share=0.52)
    alarms(load_checkpoint(path), 5)
