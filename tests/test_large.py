"""Models of the size that users have, with made-up weights and thresholds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import ltmp_export
from tests.make_checkpoint import make_checkpoint

MINUTES = 60.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mac_share"), [("deit_small_patch16_224", 0.52), ("vit_base_patch16_224", 0.6)]
)
def test_exports_in_time_and_passes_the_check(tmp_path: Path, name: str, mac_share: float) -> None:
    checkpoint, output = tmp_path / "ckpt.pth.tar", tmp_path / "model.onnx"
    left = make_checkpoint(checkpoint, name, mac_share=mac_share)
    assert left == pytest.approx(mac_share, abs=0.01)
    started = time.monotonic()
    ltmp_export.export(checkpoint, output)
    assert time.monotonic() - started < 2 * MINUTES
    found = ltmp_export.check(output, checkpoint, samples=7)
    found.require()
    assert {c.batch_size for c in found.comparisons} == {1, 2, 7}
    counts = [c.counts for c in found.comparisons]
    assert len(set(counts)) > 1, "images of one token count prove nothing about mixing"
