"""One cluster of this machine: any number of processes, one of them killed, give the same JSON."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltmp_export import export
from ltmp_export.commands.eval import evaluate
from ltmp_export.distributed import cluster, stream
from ltmp_export.errors import ExportError, InputError
from tests.conftest import DIGITS_LTMP
from tests.makers import packed
from tests.makers.commands import ltmp, refused
from tests.makers.shallow import write_shallow


def by_value(function: Any) -> None:
    """Let processes of a cluster get it without this module, and what it imports."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[function.__module__])


def without_time(report: Any) -> str:
    return json.dumps(report.to_json() | {"seconds": None})


class Killer:
    """Kills the process that was ready first, as soon as something came back."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.victim = 0

    def __call__(self, message: str) -> None:
        self.told.append(message)
        if found := re.match(r"worker \d+: process (\d+) on", message):
            self.victim = self.victim or int(found[1])
        elif message.startswith("image ") and self.victim > 0:
            os.kill(self.victim, signal.SIGKILL)
            self.victim = -1


def squares(flag: Path) -> Callable[[int], int]:
    """Of each task; 5 ends its process once, 7 is refused, 9 always ends it."""
    from ltmp_export.errors import InputError

    def do(task: int) -> int:
        if task == 9 or (task == 5 and not flag.exists()):
            flag.touch()
            os._exit(1)
        if task == 7:
            raise InputError("no 7")
        return task * task

    return do


def test_the_same_figures_whoever_works_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("ray") is None and "LTMP_REQUIRE_BROWSER" not in os.environ:
        pytest.skip("there is no Python package ray; pip install '.[test]'")
    from ray.cluster_utils import Cluster

    write_shallow(DIGITS_LTMP, tmp_path / "c.pth.tar")
    model, data = tmp_path / "m.onnx", packed.digits_shards(tmp_path / "shards", 72, 3)
    export(tmp_path / "c.pth.tar", model, check=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.setattr(stream, "TRIES", 2)
    head = {"num_cpus": 3, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    started = Cluster(initialize_head=True, head_node_args=head)
    try:
        killer = Killer()
        given: dict[str, Any] = {"batch_size": 3, "threads": 1}
        elsewhere = {"engine": "ray", "address": started.address}
        found = evaluate(model, data, **given, **elsewhere, workers=2, progress=killer)
        assert without_time(found) == without_time(evaluate(model, data, **given))
        assert killer.victim == -1
        assert "a worker was lost; its task is given again" in killer.told
        with pytest.raises(InputError, match="4 workers, but the Ray cluster has 3 processors"):
            evaluate(model, data, **elsewhere, workers=4)
        with cluster.connected(started.address, 3):
            check_tasks(tmp_path, monkeypatch)
    finally:
        started.shutdown()
    told = ltmp("eval", model, "--data", data, "--engine", "ray", "--address", "127.0.0.1:9")
    refused(told, "no Ray cluster at 127.0.0.1:9: Connection refused")


def check_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cluster: in their order, given again, refused."""
    by_value(squares)
    for workers in (1, 3):
        make = functools.partial(squares, tmp_path / f"flag {workers}")
        squared = stream.results(make, [1, 5, 2, 6, 3, 5], workers)
        assert list(squared) == [1, 25, 4, 36, 9, 25]
        assert (tmp_path / f"flag {workers}").exists()
    refused_at = stream.results(make, [1, 7, 2], 2)
    assert next(refused_at) == 1
    with pytest.raises(InputError, match="no 7"):
        next(refused_at)
    monkeypatch.setattr(stream, "TRIES", 1)
    with pytest.raises(ExportError, match="on the Ray cluster task 1 ended its process"):
        list(stream.results(make, [1, 9, 2], 1))


@pytest.mark.parametrize(
    ("flags", "message", "code"),
    [
        (["--engine", "ray", "--address", "nowhere"], "expected HOST:PORT, ray://", 2),
        (["--address", "1.2.3.4:5"], "is of a Ray cluster; give --engine ray, too", 2),
        (["--engine", "ray"], "extra 'distributed'", 4),
    ],
)
def test_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], message: str, code: int
) -> None:
    if code == 4:
        monkeypatch.setitem(sys.modules, "ray", None)
    write_shallow(DIGITS_LTMP, tmp_path / "c.pth.tar")
    export(tmp_path / "c.pth.tar", tmp_path / "m.onnx", check=False)
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 1, 32, 32), np.float32), labels=[0, 1])
    refused(ltmp("eval", tmp_path / "m.onnx", "--data", tmp_path / "a.npz", *flags), message, code)


def test_a_cluster_that_asks_for_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray tells that in lines of its own libraries, and then that it found no cluster."""

    def init(**_: object) -> None:
        os.write(2, b"GCS server: Unauthenticated: InvalidAuthToken\n")
        raise ConnectionError("Failed to connect")

    stranger = types.SimpleNamespace(init=init, is_initialized=bool, shutdown=lambda: None)
    monkeypatch.setattr(cluster, "package", lambda: stranger)
    with pytest.raises(InputError, match="asks for its token; set RAY_AUTH_MODE=token"):
        connect("auto")


def connect(address: str) -> None:
    with cluster.connected(address, 1):
        pass


@pytest.mark.parametrize("answer", [b"HTTP/1.0 400 Bad Request\r\n", b""])
def test_what_answers_is_no_cluster(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def reply() -> None:
            with server.accept()[0] as stranger:
                stranger.sendall(answer)
                stranger.recv(100)
                time.sleep(0.6)

        thread = threading.Thread(target=reply)
        thread.start()
        with pytest.raises(InputError, match=f"at 127.0.0.1:{port}: what answers there is none"):
            cluster._require_answer(f"127.0.0.1:{port}")
        thread.join()
