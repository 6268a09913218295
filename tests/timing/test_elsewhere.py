"""`ltmp bench --runtime`: the file and its baseline in other runtimes, in the same rounds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from ltmp_export import bench
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import UnavailableError
from ltmp_export.model_file.model import to_onnx
from ltmp_export.runtimes import installed
from ltmp_export.timing import elsewhere
from ltmp_export.timing.contenders import DENSE, REDUCED
from tests.makers.commands import ltmp, refused

QUICK = ("--samples", "1", "--warmup", "0", "--iterations", "1", "--threads", "1")


@pytest.fixture
def model(shallow_digits: Callable[[str], Checkpoint], tmp_path: Path) -> Path:
    onnx.save(to_onnx(shallow_digits("m"), opset=17), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_beside_onnxruntime(model: Path, tmp_path: Path) -> None:
    """It is timed in each, and the report names runtimes and versions."""
    for name in ("openvino", "tract"):
        if installed.version(name) is None:
            pytest.skip(f"{name} is not installed")
    report = tmp_path / "bench.json"
    names = ("--runtime", "openvino,tract", "--baseline", "none")
    ran = ltmp("bench", model, *QUICK, *names, "--json", report)
    assert ran.exit_code == 0, ran.stderr
    found = json.loads(report.read_text())
    entries = {entry["label"]: entry for entry in found["entries"]}
    timed = {timing["model"] for timing in found["timings"]}
    assert timed == {REDUCED, "OpenVINO reduced", "tract reduced"}
    for label in timed - {REDUCED}:
        runtime = label.split()[0]
        version = installed.version(runtime.lower())
        assert entries[label]["engine"] == f"{runtime} {version}"
        assert entries[label]["engine"] in ran.stdout
        assert entries[label]["agreement"] == 1


def test_labels_follow_the_baseline() -> None:
    files = {"other.onnx": Path("o.onnx"), REDUCED: Path("m.onnx"), DENSE: None}
    found = elsewhere.contenders(["mnn", "iree"], files)
    assert [(one.label, one.kind, one.file.name) for one in found] == [
        ("MNN other.onnx", "mnn", "o.onnx"),
        ("MNN reduced", "mnn", "m.onnx"),
        ("IREE other.onnx", "iree", "o.onnx"),
        ("IREE reduced", "iree", "m.onnx"),
    ]
    assert not any(one.required for one in found)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--runtime", "tensorflow"), "no runtime 'tensorflow'; there are iree, mnn, "),
        (("--runtime", "openvino,onnxruntime"), "name others than onnxruntime"),
        (("--runtime", "tract", "--runtime", "tract"), "--runtime tract,tract: name .* each once"),
        (("--runtime", "tract", "--side-by-side", "c.pth"), "a table of its own; drop"),
        (("--runtime", "tract", "--precisions", "c.pth"), "a table of its own; drop"),
    ],
)
def test_what_does_not_go_together(
    model: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(installed, "_there", lambda module: True)
    refused(ltmp("bench", model, *flags), message)


def test_what_is_not_installed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "_there", lambda module: module != "MNN")
    message = "MNN is not installed .*: install it, or ltmp's extra 'mnn'$"
    refused(ltmp("bench", model, "--runtime", "openvino,mnn"), message, 4)
    with pytest.raises(UnavailableError, match=message):
        bench(model, runtimes=["mnn"])
