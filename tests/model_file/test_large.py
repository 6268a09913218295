"""Models of the size that users have, with made-up weights and thresholds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import ltmp_export
from tests.makers.make_checkpoint import make_checkpoint

MINUTES = 60.0
GIB = 2**30


@pytest.mark.slow
def test_exports_in_time_and_passes_the_check(tmp_path: Path) -> None:
    """A third of ViT-B; DeiT-S is checked on more images in `test_no_false_alarm`."""
    checkpoint, output = tmp_path / "ckpt.pth.tar", tmp_path / "model.onnx"
    left = make_checkpoint(
        checkpoint, "vit_base_patch16_224", mac_share=0.6, model_kwargs={"depth": 4}
    )
    assert left == pytest.approx(0.6, abs=0.01)
    started = time.process_time()  # whatever else runs
    found = ltmp_export.export(checkpoint, output).check
    assert time.process_time() - started < 2 * MINUTES
    assert found is not None
    found.require()
    assert {c.batch_size for c in found.comparisons} == {1, 7}
    counts = [c.counts for c in found.comparisons]
    assert len(set(counts)) > 1, "images of one token count prove nothing about mixing"


def require_room(folder: Path, disk: float, memory: float) -> None:
    """Skip where so many GiB are not free."""
    free = shutil.disk_usage(folder).free / GIB
    if free < disk:
        pytest.skip(f"needs {disk:g} GiB of disk, {free:.1f} are free")
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        pytest.skip("how much memory is free is not told here")
    available = next(int(s.split()[1]) for s in lines if s.startswith("MemAvailable")) / 2**20
    if available < memory:
        pytest.skip(f"needs {memory:g} GiB of memory, {available:.1f} are free")


@pytest.mark.slow
def test_a_model_beyond_2_gb(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Measured on one core: 1.1 minutes and 7.0 GiB, of which the float64 reference takes 5."""
    require_room(tmp_path, disk=4, memory=9)
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "tests.makers.huge", str(tmp_path)],
            cwd=Path(__file__).parent.parent.parent, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        found = json.loads(ran.stdout)
        assert sorted(os.listdir(tmp_path)) == sorted(["ckpt", "model.onnx", found["data"]])
        assert found["bytes"] == sum(
            (tmp_path / name).stat().st_size for name in ("model.onnx", found["data"])
        )
    finally:
        for left in tmp_path.iterdir():
            left.unlink()
    for key, value in found.items():
        record_property(key, value)
    print(found)
    assert found["bytes"] > 2**31
    assert found["verdict"] in ("equal", "borderline")
    assert len(set(found["tokens"])) > 1
    assert (found["depth"], found["logits"]) == (32, [2, 1000])
    assert found["peak_gib"] < 9
