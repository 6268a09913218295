"""What every runtime has to give, whoever runs models with it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import ExportError, InputError, UnavailableError
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.model_file.model import to_onnx
from ltmp_export.runtimes import installed, session
from ltmp_export.runtimes.recording import TappedSession
from ltmp_export.runtimes.session import Options, Serialised, Session, Source
from ltmp_export.timing import engines
from tests import tolerances

NAMES = session.names()
IMAGES = np.arange(2 * 4, dtype=np.float32).reshape(2, 1, 2, 2)
REFUSES_DYNAMIC = {"tract", "iree", "tvm"}
FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Every runtime that is installed."""
    runtime: str = request.param
    try:
        opened(runtime)
    except UnavailableError as err:
        pytest.skip(str(err))
    return runtime


def doubling(number: int = FLOAT) -> onnx.ModelProto:
    """Images [B, 1, 2, 2] twice, and their negatives, in float32 or float16."""
    g = GraphBuilder(17, {})
    shape = ("batch", 1, 2, 2)
    images = g.input("images", number, shape)
    twice = g.op("Add", images, images, name="inner")
    g.output(g.op("Identity", twice), "twice", number, shape)
    g.output(g.op("Neg", images), "negative", number, shape)
    return g.build("doubling", {})


def opened(name: str, folder: Path | None = None, **options: Any) -> session.Engine:
    """The model in a runtime, from memory or from a file."""
    source: Source = Serialised(doubling().SerializeToString())
    if folder is not None:
        source = folder / "model.onnx"
        onnx.save(doubling(), source)
    return session.load(name).open_engine(source, Options(1, **options))


def test_the_runtimes_are_the_files_that_open_models() -> None:
    assert {"onnxruntime", "openvino"} <= set(NAMES)
    assert not {
        "converting",
        "installed",
        "listed",
        "matrix",
        "opsets",
        "providers",
        "recording",
        "saturation",
        "session",
        "whole",
    } & set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_has_all_that_a_runtime_has(name: str) -> None:
    """Whether its package is installed or not."""
    runtime = session.load(name)
    assert runtime is importlib.import_module(f"ltmp_export.runtimes.{name}")
    assert runtime.NAME.lower() == name
    assert runtime.ERRORS
    assert all(issubclass(error, Exception) for error in runtime.ERRORS)
    assert Exception not in runtime.ERRORS
    assert type(runtime.SHARES) is type(runtime.INNER) is bool
    assert runtime.MODULES
    extras = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert (f"\n{runtime.EXTRA} = [" in extras) == (name != "onnxruntime")
    assert callable(runtime.open_engine)


@pytest.mark.parametrize("in_memory", [True, False])
def test_it_runs_inputs_again_and_again(name: str, in_memory: bool, tmp_path: Path) -> None:
    engine = opened(name, None if in_memory else tmp_path)
    assert engine.engine.startswith(f"{session.load(name).NAME} ")
    assert "CPU" in engine.provider
    inputs, others = engine.inputs(IMAGES), engine.inputs(IMAGES[:1] + 1)
    first = engine.run(inputs)
    np.testing.assert_array_equal(engine.run(others)[0], 2 * (IMAGES[:1] + 1))
    again = engine.run(inputs)
    for outputs in (first, again):  # what came first is still what it was
        assert len(outputs) == 2
        np.testing.assert_array_equal(outputs[0], 2 * IMAGES)
        np.testing.assert_array_equal(outputs[1], -IMAGES)


def test_inputs_are_no_copies_where_the_runtime_says_so(name: str) -> None:
    """What is timed is the model, from the memory the images are in."""
    if not session.load(name).SHARES:
        pytest.skip(f"{name} copies images")
    inputs = opened(name).inputs(IMAGES)
    arrays = inputs.values() if isinstance(inputs, dict) else [inputs]
    assert all(np.shares_memory(array, IMAGES) for array in arrays)


def test_only_the_first_output(name: str) -> None:
    engine = opened(name, only_first=True)
    (found,) = engine.run(engine.inputs(IMAGES))
    np.testing.assert_array_equal(found, 2 * IMAGES)


def test_a_session_of_it(name: str) -> None:
    one = Session(doubling(), runtime=name, threads=1)
    assert "CPU" in one.provider
    np.testing.assert_array_equal(one.run(IMAGES), [2 * IMAGES, -IMAGES])


def test_a_session_hands_over_float16_and_gives_float32(name: str) -> None:
    found = Session(doubling(FLOAT16), runtime=name).run(IMAGES)
    assert {array.dtype for array in found} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(found, [2 * IMAGES, -IMAGES])


def test_inner_tensors_of_it(name: str) -> None:
    found = TappedSession(doubling(), {"inner": FLOAT}, runtime=name).run(IMAGES)
    assert list(found) == ["twice", "negative", "inner"]
    np.testing.assert_array_equal(found["inner"], 2 * IMAGES)


@pytest.mark.parametrize("batch", [1, 3])
def test_it_gives_the_logits_of_the_digits(
    name: str,
    batch: int,
    digits: Callable[[str], Checkpoint],
    golden: Mapping[str, NDArray[Any]],
    digit_images: Tensor,
) -> None:
    """Those of the authors' model, wherever the file runs."""
    if name in REFUSES_DYNAMIC:
        pytest.skip(f"{name} takes no file whose shapes depend on the data")
    source = Serialised(to_onnx(digits("ltmp"), opset=17).SerializeToString())
    engine = session.load(name).open_engine(source, Options(1, only_first=True))
    decided = np.flatnonzero(golden["ltmp_margin"] > tolerances.GOLDEN_DECIDED)[:6]
    for rows in decided.reshape(-1, batch):
        (logits,) = engine.run(engine.inputs(np.ascontiguousarray(digit_images.numpy()[rows])))
        np.testing.assert_allclose(
            logits, golden["ltmp_logits"][rows], rtol=0, atol=tolerances.GOLDEN_EXPORTED
        )


def test_what_it_does_not_load_or_run_is_told(name: str) -> None:
    called = session.load(name).NAME
    broken = doubling()
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ExportError, match=f"^{called} (does not load|fails on images of shape)"):
        Session(broken, runtime=name, quiet=True).run(IMAGES)
    other: NDArray[np.float32] = np.zeros((2, 3, 5, 5), np.float32)
    with pytest.raises(ExportError, match=rf"^{called} fails on images of shape \(2, 3, 5, 5\): "):
        Session(doubling(), runtime=name, quiet=True).run(other)


def test_a_file_that_it_does_not_load(name: str, tmp_path: Path) -> None:
    """Whoever opens files gets the runtime's own error."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    runtime = session.load(name)
    with pytest.raises(runtime.ERRORS):
        runtime.open_engine(path, Options(1)).inputs(IMAGES)


def test_a_provider_it_does_not_have(name: str) -> None:
    with pytest.raises(UnavailableError, match="no execution provider NoProvider"):
        Session(doubling(), runtime=name, providers=["NoProvider"])


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    message = (
        r"^OpenVINO is not installed \(no module openvino\): install it, or ltmp's extra 'openv"
    )
    with pytest.raises(UnavailableError, match=message):
        Session(doubling(), runtime="openvino")
    assert installed.version("openvino") is None


@pytest.mark.parametrize("name", ["tensorrt", "session", "providers", "..timing.engines", ""])
def test_an_unknown_one_is_refused_by_name(name: str, tmp_path: Path) -> None:
    message = f"^no runtime '{name}'; there are {', '.join(NAMES)}$"
    with pytest.raises(InputError, match=message):
        session.load(name)
    with pytest.raises(InputError, match=message):
        Session(doubling(), runtime=name)
    start = {"kind": name, "file": str(tmp_path / "m.onnx"), "providers": [], "threads": 1}
    with pytest.raises(InputError, match=message):
        engines.open_engine(start)


HEAVY = {"torch", "timm", "onnx", "onnxruntime", "openvino", "tract", "iree", "MNN", "tvm"}


@pytest.mark.parametrize(
    ("run", "allowed"),
    [
        ("import ltmp_export.runtimes.session", set()),
        ("import ltmp_export.timing.worker", set()),
        ("from ltmp_export.runtimes import session; session.load('openvino')", set()),
        (
            "from ltmp_export.runtimes import session; session.load('onnxruntime')",
            {"onnxruntime"},
        ),
        (
            "from ltmp_export.runtimes import installed, session; installed.version('tract')\n"
            "print(*session.names(), file=sys.stderr)",
            set(),
        ),
    ],
)
def test_what_it_imports(run: str, allowed: set[str]) -> None:
    """A timing process's memory is that of its own runtime, and nothing here needs PyTorch."""
    script = f"import sys\n{run}\nprint(*({HEAVY} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(ran.stdout.split()) == allowed
