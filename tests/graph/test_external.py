"""Weights beside the graph: models that are too large for one file."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import ExportError
from ltmp_export.graph import detached, interface
from ltmp_export.model_file import external
from ltmp_export.model_file.model import read_exported, to_onnx
from ltmp_export.model_file.validate import validate
from ltmp_export.runtimes import recording
from ltmp_export.runtimes.providers import CPU
from ltmp_export.runtimes.session import Session
from tests.conftest import DIGITS_LTMP
from tests.makers.commands import ltmp, succeeded
from tests.makers.interrupted import large_model, value

Digits = Callable[[str], Checkpoint]
FEW = ("--iterations", "1", "--warmup", "1", "--samples", "2")


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of more than 100 kB count as large: the digits model, and its dense one."""
    monkeypatch.setattr(detached, "INLINE_LIMIT", 100_000)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user stands, with a checkpoint."""
    shutil.copy(DIGITS_LTMP, tmp_path / "ckpt.pth.tar")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def data_of(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.endswith(".data"))


def only_the_graph(path: Path) -> onnx.ModelProto:
    return onnx.load(path, load_external_data=False)


@pytest.mark.usefixtures("large")
def test_a_large_model_through_every_command(folder: Path) -> None:
    exported = succeeded(ltmp("export", "ckpt.pth.tar", "--json", "e.json"))
    [data] = data_of(folder)
    assert re.fullmatch(r"model\.onnx\.[0-9a-f]{16}\.data", data)
    assert f"its weights are in {data}, which must stay beside it" in exported
    assert "check: equal" in exported
    document = json.loads(Path("e.json").read_text())
    assert Path(document["data"]).name == data
    sizes = Path("model.onnx").stat().st_size, Path(data).stat().st_size
    assert document["bytes"] == sum(sizes)
    assert sizes[0] < 300_000 < 4_000_000 < sizes[1]
    assert "equal: every" in succeeded(ltmp("check", "model.onnx", "ckpt.pth.tar"))
    assert "reduced" in succeeded(ltmp("bench", "model.onnx", *FEW, "--profile"))
    assert "6 blocks, width 128" in succeeded(ltmp("inspect", "model.onnx"))
    assert sorted(os.listdir()) == ["ckpt.pth.tar", "e.json", "model.onnx", data]


@pytest.mark.usefixtures("large")
def test_a_large_model_is_what_other_tools_read(folder: Path) -> None:
    succeeded(ltmp("export", "ckpt.pth.tar", "--no-check"))
    onnx.checker.check_model("model.onnx", full_check=True)
    session = ort.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).random((3, 3, 32, 32), np.float32)
    inline = read_exported(Path("model.onnx")).proto
    expected = ort.InferenceSession(inline.SerializeToString(), providers=[CPU])
    np.testing.assert_array_equal(
        session.run(None, {"images": images})[0], expected.run(None, {"images": images})[0]
    )


@pytest.mark.usefixtures("large")
def test_what_is_stored_beside_a_large_model(folder: Path) -> None:
    succeeded(ltmp("export", "ckpt.pth.tar", "--no-check"))
    end = 0
    for tensor in only_the_graph(Path("model.onnx")).graph.initializer:
        is_large = math.prod(tensor.dims) * 4 >= detached.LARGE
        assert (tensor.data_location == TensorProto.EXTERNAL) == is_large
        if is_large:
            assert "threshold" not in tensor.name
            stated = {entry.key: entry.value for entry in tensor.external_data}
            assert int(stated["offset"]) % external.ALIGNMENT == 0
            assert end <= int(stated["offset"])
            end = int(stated["offset"]) + int(stated["length"])
    [data] = data_of(folder)
    assert Path(data).stat().st_size == end


@pytest.mark.usefixtures("large")
def test_another_export_takes_the_place_of_both_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "model.onnx"
    (folder / "model.onnx.0123456789abcdef.data").write_bytes(b"nobody's")
    (folder / "other.onnx.0123456789abcdef.data").write_bytes(b"another's")
    kept = data_of(folder)
    external.write_model(path, large_model(1.0))
    first = data_of(folder)
    assert len(first) == 3
    external.write_model(path, large_model(1.0))
    assert data_of(folder) == first
    external.write_model(path, large_model(2.0))
    second = data_of(folder)
    assert (len(second), value(path)) == (3, 2.0)
    assert second != first
    monkeypatch.setattr(detached, "INLINE_LIMIT", 2**31)
    external.write_model(path, large_model(3.0))
    assert (data_of(folder), value(path)) == (kept, 3.0)


@pytest.mark.usefixtures("large")
def test_data_of_other_names_are_not_removed(folder: Path) -> None:
    """A model whose weights another tool put beside it, or in a file of another model."""
    path = folder / "model.onnx"
    model = large_model(1.0)
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    external.write_model(path, large_model(2.0))
    assert "model.onnx.data" in data_of(folder)
    graph_only = only_the_graph(path)
    shared = "other.onnx.0123456789abcdef.data"
    shutil.copy(next(p for p in data_of(folder) if p != "model.onnx.data"), shared)
    graph_only.graph.initializer[0].external_data[0].value = shared
    onnx.save(graph_only, path)
    external.write_model(path, large_model(3.0))
    assert shared in data_of(folder)


@pytest.mark.usefixtures("large")
def test_a_link_to_a_model_stays_one(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "model.onnx").symlink_to("sub/real.onnx")
    external.write_model(folder / "model.onnx", large_model(1.0))
    external.write_model(folder / "model.onnx", large_model(2.0))
    assert (folder / "model.onnx").is_symlink()
    assert (data_of(folder), len(data_of(folder / "sub"))) == ([], 1)
    assert value(folder / "model.onnx") == value(folder / "sub" / "real.onnx") == 2.0


@pytest.mark.usefixtures("large")
def test_names_that_are_no_text(folder: Path) -> None:
    path = folder / os.fsdecode(b"m\xff\\\n.onnx")
    external.write_model(path, large_model(1.0))
    external.write_model(path, large_model(2.0))
    assert value(path) == 2.0
    assert len(data_of(folder)) == 1


def test_sessions_and_the_checker_get_a_model_in_parts(digits: Digits) -> None:
    model = to_onnx(digits("ltmp"), opset=17)
    light, weights = detached.detach(model)
    assert light.ByteSize() < 300_000 < 4_000_000 < sum(w.nbytes for w in weights.values())
    assert detached.without_weights(model).ByteSize() < 300_000
    images = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    whole = ort.InferenceSession(model.SerializeToString(), providers=[CPU])
    expected = whole.run(None, {"images": images})[0]
    np.testing.assert_array_equal(Session(model).run(images)[0], expected)
    tapped = recording.TappedSession(model, interface.count_taps(6)).run(images)
    np.testing.assert_array_equal(tapped["logits"], expected)
    assert tapped["block_05/count"].shape == (2,)
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    wrong.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(ExportError, match="checker refuses"):
        validate(wrong, 17)


def test_a_small_model_is_one_file_as_it_was(folder: Path, digits: Digits) -> None:
    model = to_onnx(digits("ltmp"), opset=17)
    written = external.write_model(folder / "model.onnx", model)
    content = (folder / "model.onnx").read_bytes()
    assert (written.data, written.bytes) == (None, len(content))
    assert content == model.SerializeToString()


def test_a_graph_that_is_too_large_without_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        def SerializeToString(self) -> bytes:  # noqa: N802
            raise ValueError("exceeds maximum protobuf size of 2GB")

    with pytest.raises(ExportError, match="more than 2 GB without the weights"):
        detached.serialised(Endless())  # type: ignore[arg-type]


def test_a_file_that_lacks_a_weight_has_no_dense_model(folder: Path) -> None:
    succeeded(ltmp("export", "ckpt.pth.tar", "--no-check"))
    model = onnx.load("model.onnx")
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    stored["head.weight"].name = "renamed"
    for node in model.graph.node:
        node.input[:] = ["renamed" if name == "head.weight" else name for name in node.input]
    onnx.save(model, "model.onnx")
    result = ltmp("bench", "model.onnx", *FEW)
    assert result.exit_code == 2
    assert "dense model cannot be written from model.onnx: it lacks 'head.weight'" in result.stderr
