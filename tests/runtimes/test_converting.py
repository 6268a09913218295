"""What runtimes that convert files share; none of their packages is needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from ltmp_export.files.streams import silence
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.runtimes import converting, iree, mnn
from ltmp_export.runtimes.session import Serialised

HALF, FLOAT, INT64 = TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.INT64


def counting(number: int = FLOAT) -> onnx.ModelProto:
    """Images [B, 1, 2, 2] → themselves, and how many there are [B]."""
    g = GraphBuilder(17, {})
    images = g.input("images", number, ("batch", 1, 2, 2))
    g.output(g.op("Identity", images), "same", number, ("batch", 1, 2, 2))
    g.output(g.op("Shape", images, end=1), "count", INT64, (1,))
    return g.build("counting", {})


def test_what_a_graph_takes_and_gives() -> None:
    face = converting.interface(counting(HALF))
    assert (face.images, face.sides, face.half) == ("images", (None, 1, 2, 2), True)
    assert face.names == ("same", "count")
    images = np.ones((3, 1, 2, 2), np.float32)
    assert face.taken(images).dtype == np.float16
    narrow: list[NDArray[Any]] = [images.astype(np.float16), np.array([3], np.int32)]
    assert [array.dtype for array in face.given(narrow)] == [np.float16, np.int64]
    assert not np.shares_memory(face.given(narrow)[0], narrow[0])
    assert len(face.given(narrow[:1])) == 1
    for other in (images[:, :, :1], images[0]):
        with pytest.raises(RuntimeError, match=r"^the model takes images \[any, 1, 2, 2\]$"):
            face.taken(other)


def test_a_batch_is_written_wherever_it_stands() -> None:
    model = counting()
    converting.fix_batch(model, 7)
    assert converting.interface(model).sides == (7, 1, 2, 2)
    axes = model.graph.output[0].type.tensor_type.shape.dim
    assert [axis.dim_value for axis in axes] == [7, 1, 2, 2]
    onnx.checker.check_model(model, full_check=True)


def test_a_model_is_read_from_both_places(tmp_path: Path) -> None:
    onnx.save(counting(), tmp_path / "m.onnx")
    assert converting.read(tmp_path / "m.onnx") == counting()
    assert converting.read(Serialised(counting().SerializeToString())) == counting()
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(RuntimeError, match=r"^it is no ONNX model: "):
        converting.read(tmp_path / "m.onnx")


def test_a_converter_runs_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the modules of this process, and not those of the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("json.py").write_text("raise SystemExit('a stranger')")
    said = converting.run("import json, ltmp_export; print(*sys.argv[1:])", "a", Path("b c"))
    assert said == "a b c\n"
    failing = "print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)"
    with pytest.raises(RuntimeError, match=r"^out\nerr\n\nthe conversion failed$"):
        converting.run(failing)
    with pytest.raises(RuntimeError, match=r"the conversion died of signal 9$"):
        converting.run("import os; os.kill(os.getpid(), 9)")


STOPPED = """
import sys
from ltmp_cli.interrupts import end_on_termination
from ltmp_export.files.workplace import workplace
from ltmp_export.runtimes import converting
end_on_termination()
with workplace() as folder:
    print(folder, flush=True)
    converting.run(*sys.argv[1:])
"""
CONVERTER = "import subprocess; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
COMPILER = """
import sys, time
while True:
    with open(sys.argv[1], "a") as file:
        file.write("at work ")
    time.sleep(0.02)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_conversion_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    """Neither its folder nor the compiler that the converter started."""
    log = tmp_path / "log"
    command = [sys.executable, "-c", STOPPED, CONVERTER, COMPILER, str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert folder.is_dir()
        while not log.exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    assert not folder.exists()
    written = log.stat().st_size
    time.sleep(0.5)
    assert log.stat().st_size == written


def test_nothing_is_seen_while_it_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(1, b"before ")
    with silence():
        os.write(1, b"noise")
        os.write(2, b"noise")
    with pytest.raises(KeyError), silence():
        raise KeyError
    os.write(1, b"after")
    os.write(2, b"error")
    assert capfd.readouterr() == ("before after", "error")


def test_what_a_converter_says_is_one_line() -> None:
    lacking = "Start\n[1:2] :220: These Op Not Support: ONNX::Hardmax | ONNX::Mod \nFailed!\n"
    assert mnn._told(lacking) == "it has no operator Hardmax, Mod"
    assert mnn._told("Start\nFailed!\n") == "Failed!"
    assert mnn._told("\n").startswith("it converts nothing")
    compiler = (
        "Traceback\nError: Error invoking\n/tmp/m.mlir:2:1: error: 'cast' op is wrong\n"
        '    %2 = torch.operator "onnx.Compress"(%1) {}\n  ^\nthe conversion failed'
    )
    assert iree._said(compiler) == "Compress: 'cast' op is wrong"
    assert iree._said("/tmp/m.mlir:2:1: error: wrong\nthe conversion failed") == "wrong"
    assert iree._said("Traceback\nTypeError: none\n\nthe conversion failed") == "TypeError: none"


def test_a_process_leaves_quietly() -> None:
    script = (
        "import atexit, os\natexit.register(os.write, 2, b'noise')\n"
        "from ltmp_export.runtimes import iree\niree._leave_quietly()\n"
        "os.write(2, b'seen')\natexit.register(os.write, 2, b' too')\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stderr == "seen too"
