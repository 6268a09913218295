"""Files that other tools have written anew: the same bits, names and metadata, or one line."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from ltmp_export import check, inspect
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.graph.interface import missing_tensors
from ltmp_export.images import fed, inputs
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare, taps
from ltmp_export.parity.recorded import Recorded
from ltmp_export.parity.report import CheckReport
from ltmp_export.plan.linears import rounded
from ltmp_export.precision.formats import Precision
from tests.conftest import DIGITS_LTMP as CKPT
from tests.makers import recordings
from tests.makers.commands import ltmp, refused
from tests.makers.lower_precision import prepared
from tests.makers.mutations import change_stored

Digits = Callable[[str], Checkpoint]
Tool = Callable[[Path, Path], None]


def optimised(level: str, **entries: str) -> Tool:
    """onnxruntime, which saves what it would run."""

    def tool(source: Path, target: Path) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(target)
        for key, value in entries.items():
            options.add_session_config_entry(key.replace("__", "."), value)
        ort.InferenceSession(str(source), options, ["CPUExecutionProvider"])

    return tool


def simplified(package: str, function: str) -> Tool:
    """A tool that takes a model and gives one."""

    def tool(source: Path, target: Path) -> None:
        pytest.importorskip(package.partition(".")[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = getattr(importlib.import_module(package), function)(onnx.load(source))
        onnx.save(made, target)

    return tool


def preprocessed(source: Path, target: Path) -> None:
    """What onnxruntime's quantisation asks for before it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quant_pre_process(str(source), str(target), skip_symbolic_shape=True)


TOOLS: dict[str, Tool] = {
    "onnxslim": simplified("onnxslim", "slim"),
    "onnxoptimizer": simplified("onnxoptimizer", "optimize"),
    "onnxscript": simplified("onnxscript.optimizer", "optimize"),
    "basic": optimised("ORT_ENABLE_BASIC"),
    "all": optimised("ORT_ENABLE_ALL"),
    "preprocess": preprocessed,
}


class Made(NamedTuple):
    """A file, what it is of, and in which numbers."""

    path: Path
    checkpoint: Checkpoint
    precision: Precision

    def by(self, tool: str) -> Path:
        """The file as a tool writes it, once."""
        path = self.path.with_name(f"{self.path.stem}-{tool}.onnx")
        if not path.exists():
            TOOLS[tool](self.path, path)
        return path

    def read(self, path: Path) -> list[str]:
        """What a check would miss in another file."""
        checkpoint, precision = self.checkpoint, self.precision
        linears = rounded(checkpoint.geometry)
        return missing_tensors(onnx.load(path), taps.names(checkpoint.plan, precision, linears))

    def judged(self, path: Path) -> CheckReport:
        """Another file, of two images."""
        few, given = inputs.embedded_digits().select(2), self.precision
        return compare.compare(
            onnx.load(path), self.checkpoint, few, batch_sizes=(1, 2), precision=given
        )


@pytest.fixture(scope="module")
def files(shallow_digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    folder, float32 = tmp_path_factory.mktemp("handled"), Precision()
    dynamic, pixels = shallow_digits("ltmp"), inputs.embedded_digits().pixels.astype(np.float32)
    balanced, int8 = prepared(dynamic, pixels[:4], "static")
    models = {
        "dynamic": (to_onnx(dynamic, opset=17), dynamic, float32),
        "single": (to_onnx(dynamic, opset=17, batch_size=1), dynamic, float32),
        "m": (to_onnx(shallow_digits("m"), opset=17), shallow_digits("m"), float32),
        "int8": (to_onnx(balanced, opset=17, precision=int8), dynamic, int8),
    }
    found = {}
    for name, (model, checkpoint, precision) in models.items():
        onnx.save(model, folder / f"{name}.onnx")
        found[name] = Made(folder / f"{name}.onnx", checkpoint, precision)
    return found


def given(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options)
    found: NDArray[np.float32] = session.run(["logits"], {"images": images})[0]
    return found


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        *(("m", tool) for tool in TOOLS if tool != "basic"),
        *(("dynamic", tool) for tool in ("onnxslim", "onnxoptimizer", "all")),
        ("single", "onnxoptimizer"),
        ("int8", "basic"),
    ],
)
def test_bits_names_and_metadata_stay(name: str, tool: str, files: dict[str, Made]) -> None:
    """So whatever a check reads is there, or told from what is."""
    source, made = files[name], files[name].by(tool)
    pixels = inputs.embedded_digits().select(7).pixels.astype(np.float32)
    for size in (1,) if name == "single" else (1, 2, 7):
        np.testing.assert_array_equal(given(made, pixels[:size]), given(source.path, pixels[:size]))
    before, after = onnx.load(source.path).metadata_props, onnx.load(made).metadata_props
    assert {(e.key, e.value) for e in before} <= {(e.key, e.value) for e in after}
    assert source.read(made) == []


@pytest.mark.parametrize(
    ("name", "tool"),
    [("dynamic", "onnxoptimizer"), ("m", "onnxslim"), ("m", "all"), ("int8", "onnxoptimizer")],
)
def test_decisions_are_still_proved(name: str, tool: str, files: dict[str, Made]) -> None:
    """A count of another shape, one that is gone, weights stored once: all failed before."""
    found = files[name].judged(files[name].by(tool))
    assert found.verdict in ("equal", "bounded"), found.headline()
    assert found.proved_at == "decisions"


def test_what_onnxruntime_saves_is_said_to_be_its_own(files: dict[str, Made]) -> None:
    made = files["dynamic"].by("all")
    (remark,) = inspect(made)["remarks"]
    assert remark.startswith("holds operators of com.microsoft")
    assert "it runs in onnxruntime alone" in remark
    assert any(kind.startswith("com.microsoft:") for kind in inspect(made)["operators"])
    warned = check(made, files["dynamic"].checkpoint, samples=1, batch_sizes=(1,)).warnings
    assert any(remark in warning for warning in warned)
    assert "rewritten" in ltmp("inspect", made).stdout
    assert inspect(files["dynamic"].path)["remarks"] == []


def test_ort_format_is_refused_and_judged_by_what_it_gives(
    files: dict[str, Made], tmp_path: Path
) -> None:
    source, made = files["dynamic"], tmp_path / "made.ort"
    optimised("ORT_ENABLE_BASIC", session__save_model_format="ORT")(source.path, made)
    message = "in onnxruntime's own format .*'ltmp inputs'.*--recorded"
    for words in (("inspect", made), ("check", made, CKPT), ("bench", made)):
        refused(ltmp(*words), message)
    few = inputs.embedded_digits().select(2)
    arrays: recordings.Arrays = {fed.DIGEST: fed.digest(few.pixels)}
    for size, which in ((1, 0), (1, 1), (2, 0)):
        images = few.pixels[which * size : which * size + size].astype(np.float32)
        arrays[f"batch_{size}/{which}/logits"] = given(made, images)
    recordings.write(tmp_path / "recorded.npz", arrays)
    recorded, model = Recorded(tmp_path / "recorded.npz"), onnx.load(source.path)
    recorded.require(model, source.checkpoint.geometry, few, (1, 2))
    found = compare.compare(
        model, source.checkpoint, few, batch_sizes=(1, 2), computed=recorded, outputs_alone=True
    )
    assert (found.verdict, found.proved_at) == ("equal", "outputs"), found.headline()


def test_what_a_tool_took_is_said_in_a_line(files: dict[str, Made], tmp_path: Path) -> None:
    """Float16 in a file of float32, and metadata; each command says what to do."""
    made, model = tmp_path / "made.onnx", onnx.load(files["dynamic"].path)
    tensor = next(t for t in model.graph.initializer if t.name == "head.weight")
    half = numpy_helper.to_array(tensor).astype(np.float16)
    tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    onnx.save(model, made)
    message = "states fp32 and stores head.weight in float16: .* with --precision fp16"
    for words in (("inspect", made), ("check", made, CKPT), ("bench", made)):
        refused(ltmp(*words), message)
    del model.metadata_props[:]
    onnx.save(model, made)
    refused(ltmp("inspect", made), "ltmp.schema: found none.* before a tool dropped its metadata")


def test_without_its_tensors_a_file_is_judged_by_its_outputs(
    files: dict[str, Made], tmp_path: Path
) -> None:
    """And said so; what is wrong in them fails as ever."""
    source, made = files["dynamic"], tmp_path / "made.onnx"
    renamed = source.path.read_bytes().replace(b"/partner", b"/destiny")
    made.write_bytes(renamed)
    found = check(made, source.checkpoint, samples=2, batch_sizes=(1, 2))
    assert (found.verdict, found.proved_at) == ("equal", "outputs"), found.headline()
    assert "lacks the named tensor block_00/partner and 2 more" in found.warnings[-1]
    model = onnx.ModelProto.FromString(renamed)
    change_stored(model, "blocks.1.mlp.fc2.bias", lambda array: array.fill(0.5))
    onnx.save(model, made)
    found = check(made, source.checkpoint, samples=2, batch_sizes=(1, 2))
    assert found.verdict == "fail"
