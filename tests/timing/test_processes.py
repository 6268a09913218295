"""Children that time: nothing of them is left, whatever happens, and no error is a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import ExportError, InputError, UnavailableError
from ltmp_export.files.workplace import workplace
from ltmp_export.model_file.model import to_onnx
from ltmp_export.timing import processes
from ltmp_export.timing.contenders import Contender
from ltmp_export.timing.processes import Process

pytestmark = pytest.mark.skipif(os.name != "posix", reason="looks processes up by POSIX signals")


@pytest.fixture
def folder(tmp_path: Path, digits: Callable[[str], Checkpoint]) -> Iterator[Path]:
    """A workplace with the digits model and three images."""
    with workplace() as place:
        model = to_onnx(digits("ltmp"), opset=17)
        (place / "model.onnx").write_bytes(model.SerializeToString())
        np.save(place / "images.npy", np.zeros((3, 3, 32, 32), np.float32))
        yield place


def process(folder: Path, contender: Contender | None = None, **changes: object) -> Process:
    contender = contender or Contender("reduced", "onnxruntime", folder / "model.onnx")
    shared = {"images": str(folder / "images.npy"), "threads": 2}
    return Process("reduced", contender.start() | shared | changes, folder)


def prepare(one: Process) -> None:
    one.open()
    one.ask("prepare", batches=[[0], [1], [2]], rows=[[], [], []], warmup=[0, 2])


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_round_times_every_batch(folder: Path) -> None:
    with process(folder) as one:
        prepare(one)
        assert len(one.ask("round")["seconds"]) == 3
        outputs = one.ask("outputs", keep=1)
        assert np.shape(outputs["top1"]) == (3, 1)
        assert np.shape(outputs["logits"]) == (1, 1, 10)
    assert not is_alive(one.pid)


def test_a_waiting_child_does_not_compute(folder: Path) -> None:
    """Threads that spin between rounds would slow the contender whose turn it is."""
    with process(folder) as one:
        prepare(one)
        one.ask("round")
        before = one.ask("usage")["cpu_seconds"]
        time.sleep(1.0)
        assert one.ask("usage")["cpu_seconds"] - before < 0.3


def test_a_child_loads_its_own_runtime_only(folder: Path) -> None:
    with process(folder) as one:
        prepare(one)
        peak = one.ask("usage")["peak_mb"]
        assert peak is None or peak < 250  # torch alone takes more


def test_a_child_that_dies(folder: Path) -> None:
    with process(folder) as one:
        prepare(one)
        os.kill(one.pid, signal.SIGKILL)
        with pytest.raises(ExportError, match=r"timing reduced died, killed by signal 9 \(out of"):
            one.ask("round")


def test_a_file_that_does_not_load(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no model")
    with process(folder) as one, pytest.raises(ExportError, match="reduced does not run: .*ONNXR"):
        one.open()
    assert not is_alive(one.pid)


def test_a_child_that_does_not_begin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_BOOT", "raise SystemExit('no room')")
    with (
        process(folder) as one,
        pytest.raises(ExportError, match="died, exit code 1; its last words: no room"),
    ):
        one.open()


def test_errors_of_this_package_stay_what_they_are(folder: Path) -> None:
    missing = Contender("eager PyTorch", "eager", folder / "none.pth")
    with process(folder, missing) as one, pytest.raises(InputError, match=r"none.pth does not exi"):
        one.open()


def test_a_missing_runtime(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the parent's search path in which the runtime cannot be imported."""
    (folder / "without").mkdir()
    (folder / "without" / "onnxruntime.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(folder / "without")
    with process(folder) as one, pytest.raises(UnavailableError, match="no_such_package"):
        one.open()


def test_the_current_folder_shadows_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json.py", "numpy.py", "onnxruntime.py", "signal.py"):
        (tmp_path / name).write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    with process(folder) as one:
        prepare(one)


SCRIPT = """
    import sys
    import ltmp_export
    settings = ltmp_export.Settings(iterations=int(sys.argv[1]))
    print("begun", flush=True)
    ltmp_export.bench("model.onnx", samples=2, settings=settings)
    print("done")
"""


@pytest.fixture
def script(
    tmp_path: Path, digits: Callable[[str], Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A user's script that measures at its top level, with temporary folders under `tmp`."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "model.onnx").write_bytes(to_onnx(digits("ltmp"), opset=17).SerializeToString())
    (tmp_path / "measure.py").write_text(textwrap.dedent(SCRIPT))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path / "measure.py"


def test_a_script_without_main_guard(script: Path) -> None:
    ran = subprocess.run(
        [sys.executable, script, "1"], cwd=script.parent, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines() == ["begun", "done"]
    assert list((script.parent / "tmp").glob("ltmp-*")) == []


def children(pid: int) -> set[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return {int(line) for line in listed.stdout.split()}


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_leaves_no_child(script: Path, stop: signal.Signals) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, str(script), "1000000"]
    with subprocess.Popen(
        command, cwd=script.parent, stdout=pipe, stderr=pipe, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        assert parent.stdout.readline() == "begun\n"
        started: set[int] = set()
        while len(started) < 2:  # the model and the dense one
            time.sleep(0.05)
            started = children(parent.pid)
        time.sleep(0.5)
        started = children(parent.pid)
        parent.send_signal(stop)
        parent.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while any(map(is_alive, started)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, started))
    if stop == signal.SIGINT:
        assert list((script.parent / "tmp").glob("ltmp-*")) == []


def test_a_terminated_command_leaves_nothing(script: Path) -> None:
    run = "import sys; from ltmp_cli.__main__ import main; sys.argv[0] = 'ltmp'; main()"
    command = [sys.executable, "-c", run, "bench", "model.onnx", "--iterations", "1000000"]
    with subprocess.Popen(command, cwd=script.parent, stderr=subprocess.DEVNULL) as parent:
        started: set[int] = set()
        while len(started) < 2:
            time.sleep(0.05)
            started = children(parent.pid)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(timeout=60) == 143
    assert not any(map(is_alive, started))
    assert list((script.parent / "tmp").glob("ltmp-*")) == []
