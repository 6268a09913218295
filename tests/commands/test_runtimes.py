"""`ltmp runtimes`: what is installed, what installs the others, and what was seen to run."""

from __future__ import annotations

import json

import onnxruntime
import pytest

from ltmp_export.graph.targets import ANY, TARGETS
from ltmp_export.runtimes import installed, listed, matrix, session
from tests.makers.commands import ltmp, run_without


def test_it_is_told_without_anything_heavy() -> None:
    heavy = {"torch", "timm", "onnx", "onnxruntime", "numpy", "openvino", "tract"}
    commands = [["runtimes"], *([name, "--help"] for name in ("check", "bench", "export"))]
    shown = run_without(heavy, commands)
    assert onnxruntime.__version__ in shown
    tables, *helps = " ".join(shown.split()).split("Usage: ")
    for text in (tables, *helps):
        for runtime in listed.runtimes():
            assert runtime in text


def test_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    real = installed._there
    monkeypatch.setattr(installed, "_there", lambda m: m not in ("MNN", "_tools") and real(m))
    shown = ltmp("runtimes").stdout
    assert 'mnn          no         pip install "ltmp[mnn]"' in shown
    for row in matrix.read().rows:
        assert row.name in shown


def test_json() -> None:
    found = json.loads(ltmp("runtimes", "--json").stdout)
    assert found["kind"] == "runtimes"
    here = {one["name"]: one for one in found["runtimes"]}
    assert tuple(here) == session.names()
    assert here["onnxruntime"] == {
        "name": "onnxruntime",
        "called": "onnxruntime",
        "version": onnxruntime.__version__,
        "extra": "",
    }
    assert here["iree"]["extra"] == "iree"
    assert found["matrix"]["batches"] == [1, 2, 7]


def test_what_a_file_says_is_what_is_read_of_it() -> None:
    for name, told in listed.runtimes().items():
        runtime = session.load(name)
        assert told == listed.Listed(runtime.NAME, runtime.MODULES, runtime.EXTRA)
        assert name in (*TARGETS, listed.ONNXRUNTIME)
    assert ANY not in listed.runtimes()
