"""A signal at every line: each time in a process of its own, which says how it ended.

    python -m tests.makers.interrupted write SIGINT command FOLDER

Prints a line of JSON for each moment: where the signal came, the exit code, what is left. As
"command" the signals are handled as the command handles them, as "library" as Python does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import onnx
from ltmp_cli.interrupts import end_on_termination
from onnx import TensorProto, helper, numpy_helper

from ltmp_export.errors import LtmpError
from ltmp_export.files import disk, undo
from ltmp_export.files.workplace import workplace
from ltmp_export.graph import detached
from ltmp_export.model_file import external
from ltmp_export.model_file.reading import read
from ltmp_export.timing import processes

WATCHED = {undo.__file__, contextlib.__file__, external.__file__, disk.__file__}


def large_model(fill: float) -> onnx.ModelProto:
    """An identity with weights of 200 kB, all of one value."""
    vector = [1, 50_000]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, vector)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, vector)],
        [numpy_helper.from_array(np.full(vector, fill, np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def value(path: Path) -> float:
    """What fills the weights of a `large_model`; all of it is read."""
    found = numpy_helper.to_array(read(path).graph.initializer[0])
    if found.min() != found.max():
        raise ValueError("a mixture")
    return float(found.min())


class Write:
    """A large model is replaced by another large one."""

    watched = WATCHED

    def __init__(self, folder: Path) -> None:
        self.path = folder / "model.onnx"

    def prepare(self) -> None:
        detached.INLINE_LIMIT = 100_000
        external.write_model(self.path, large_model(1.0))

    def act(self) -> None:
        external.write_model(self.path, large_model(2.0))

    def left(self) -> dict[str, Any]:
        return {"value": value(self.path), "files": len(os.listdir(self.path.parent))}


class Bench:
    """A child is started in a workplace, and ended."""

    watched = (WATCHED | {processes.__file__}) - {contextlib.__file__}

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.environ["TMPDIR"] = str(folder)

    def prepare(self) -> None:
        pass

    def act(self) -> None:
        with (
            contextlib.suppress(LtmpError),  # the child is not told what to do
            workplace() as place,
            processes.Process("test", {}, place) as one,
        ):
            one.open()

    def left(self) -> dict[str, Any]:
        return {"files": len(os.listdir(self.folder))}


def lines(watched: set[str], number: int, act: Callable[[], None]) -> Callable[..., Any]:
    """A trace function that calls `act` at the given line."""
    seen = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal seen
        if frame.f_code.co_filename not in watched:
            return None
        if event == "line":
            seen += 1
            if seen == number:
                place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                os.write(3, place.encode())
                act()
        return trace

    return trace


def child(work: Any, number: int, stop: signal.Signals, as_command: bool) -> None:
    """Do the work with a signal at one line; never returns."""
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the background ignores it
        if as_command:
            end_on_termination()
        sys.settrace(lines(work.watched, number, lambda: signal.raise_signal(stop)))
        work.act()
        sys.settrace(None)
        code = 0
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    undo.undo_all()  # as at the exit
    os._exit(code)


def moments(work: Any, stop: signal.Signals, as_command: bool) -> Iterator[dict[str, Any]]:
    """How the process ended at each moment, until one ends before its moment comes."""
    number = 0
    while True:
        number += 1
        work.prepare()
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(writing, 3)
            os.setpgid(0, 0)
            child(work, number, stop, as_command)
        os.close(writing)
        _, status = os.waitpid(pid, 0)
        place = os.read(reading, 100).decode()
        os.close(reading)
        try:
            os.killpg(pid, 0)
            orphans = True
        except ProcessLookupError:
            orphans = False
        code = os.waitstatus_to_exitcode(status)
        yield {"place": place, "code": code, "orphans": orphans} | work.left()
        if not place:
            return


def main() -> None:
    what, stop, how, folder = sys.argv[1:]
    work = {"write": Write, "bench": Bench}[what](Path(folder))
    for found in moments(work, signal.Signals[stop], how == "command"):
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
