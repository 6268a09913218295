"""The programs that record outputs on a device, as the manual shows them, run here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ltmp_export
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.model_file import external
from ltmp_export.model_file.model import to_onnx
from tests.documents import manuals

MANUAL = manuals.ROOT / "ltmp_export/runtimes/README.md"

# What a user writes: here the logits of an image are its first ten numbers.
INFER = """
std::map<std::string, Array> infer(const float* images, size_t batch) {
  Array logits{{batch, 10}, {}};
  for (size_t image = 0; image < batch; ++image)
    logits.data.insert(logits.data.end(), images + image * 3072, images + image * 3072 + 10);
  return {{"logits", logits}};
}
"""


def program(language: str) -> str:
    """The only one in a language."""
    (source,) = manuals.blocks(MANUAL, language)
    return source


def run(*command: object) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def model(
    shallow_digits: Callable[[str], Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A file, in an empty folder, with what it is to be fed in `fed`."""
    monkeypatch.chdir(tmp_path)
    proto = to_onnx(shallow_digits("ltmp"), opset=17, token_counts=True)
    external.write_model(Path("model.onnx"), proto)
    ltmp_export.inputs("model.onnx", "fed")
    return Path("model.onnx")


def prove(model: Path, checkpoint: Checkpoint) -> None:
    found = ltmp_export.check(model, checkpoint, recorded="recorded")
    assert (found.verdict, found.proved_at) == ("equal", "outputs"), found.headline()
    assert len(found.comparisons) == 42


def test_python(model: Path, shallow_digits: Callable[[str], Checkpoint]) -> None:
    Path("record.py").write_text(program("py"))
    run(sys.executable, "record.py", model, "fed", "recorded")
    prove(model, shallow_digits("ltmp"))


def test_node(model: Path, shallow_digits: Callable[[str], Checkpoint]) -> None:
    """By onnxruntime's WebAssembly, without a browser."""
    folder, node = os.environ.get("LTMP_ONNXRUNTIME_WEB"), shutil.which("node")
    if folder is None or node is None:
        pytest.skip(
            "LTMP_ONNXRUNTIME_WEB does not name onnxruntime-web's dist, or there is no node"
        )
    package = (Path(folder) / "ort.wasm.min.mjs").resolve().as_uri()
    source = program("js")
    assert '"onnxruntime-node"' in source
    source = source.replace('"onnxruntime-node"', f'"{package}"')
    Path("record.mjs").write_text(
        source.replace("const [model", "ort.env.wasm.numThreads = 1;\nconst [model", 1)
    )
    run(node, "record.mjs", model, "fed", "recorded")
    prove(model, shallow_digits("ltmp"))


def test_cpp(model: Path) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    Path("record.cpp").write_text(program("cpp") + INFER)
    run(compiler, "-std=c++17", "-Wall", "-Werror", "record.cpp", "-o", "record")
    run("./record", "fed", "recorded")
    images = np.load("fed/images.npy")
    for size in (1, 2, 7):
        given = [np.load(f"recorded/batch_{size}/{k}/logits.npy") for k in range(14 // size)]
        np.testing.assert_array_equal(np.concatenate(given), images.reshape(14, -1)[:, :10])
    np.testing.assert_array_equal(np.load("recorded/digest.npy"), np.load("fed/digest.npy"))
