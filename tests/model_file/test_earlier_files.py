"""Files of an earlier version are still read: see `fixtures/README.md` for how they were made."""

from __future__ import annotations

import pytest

from ltmp_export import Settings, bench, check, inspect
from tests.conftest import FIXTURES

EARLIER = FIXTURES / "earlier"
CHECKPOINTS = {
    "ltmp.onnx": "ltmp.pth",
    "ltmp_budget.onnx": "ltmp.pth",
    "ltmp_int8.onnx": "ltmp.pth",
    "patchmerger.onnx": "patchmerger.pth",
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_check(name: str) -> None:
    report = check(EARLIER / name, EARLIER / CHECKPOINTS[name], samples=4)
    assert report.verdict in ("equal", "borderline", "bounded")


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_inspect(name: str) -> None:
    told = inspect(EARLIER / name)
    assert told["family"] == name.partition("_")[0].removesuffix(".onnx")


def test_bench() -> None:
    settings = Settings(batch_sizes=(1,), warmup=0, iterations=1)
    report = bench(EARLIER / "patchmerger.onnx", samples=2, settings=settings)
    assert len(report.entries) == 2  # the file and its dense model
