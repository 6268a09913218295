"""Clusters that are none, and what goes with none: one line, and nothing is written."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest

from ltmp_export import export
from ltmp_export.distributed import cluster
from ltmp_export.distributed.cluster import Place
from ltmp_export.errors import InputError
from tests.conftest import DIGITS_LTMP
from tests.makers.commands import left, ltmp, refused
from tests.makers.shallow import write_shallow

RAY = ["--engine", "ray"]
NOWHERE = [*RAY, "--address", "127.0.0.1:9"]
REFUSED = [
    ([*RAY, "--address", "nowhere"], "expected HOST:PORT, ray://", 2),
    (["--address", "1.2.3.4:5"], "is of a Ray cluster; give --engine ray, too", 2),
    (NOWHERE, "no Ray cluster at 127.0.0.1:9: Connection refused", 2),
    (RAY, "extra 'distributed'", 4),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, its file, and images without labels."""
    folder = tmp_path_factory.mktemp("files")
    write_shallow(DIGITS_LTMP, folder / "c.pth.tar")
    export(folder / "c.pth.tar", folder / "m.onnx", check=False)
    images = np.zeros((4, 1, 32, 32), np.float32)
    np.savez(folder / "a.npz", images=images, labels=[0, 1, 2, 3])
    np.savez(folder / "unlabelled.npz", images=images)
    (folder / "cut.tar").write_bytes(b"no shard")
    return folder


@pytest.mark.parametrize(("flags", "message", "code"), REFUSED)
@pytest.mark.parametrize("command", ["eval", "calibrate", "export"])
def test_what_is_refused(
    files: Path, monkeypatch: pytest.MonkeyPatch, command: str,
    flags: list[str], message: str, code: int,
) -> None:  # fmt: skip
    if code == 4:
        monkeypatch.setitem(sys.modules, "ray", None)
    before, made, data = left(files), files / "made", files / "a.npz"
    given = {
        "eval": [files / "m.onnx", "--data", data, "--json", made],
        "calibrate": [files / "c.pth.tar", "--images", data, "--reduction-target", 0.6, "-o", made],
        "export": [
            files / "c.pth.tar", "--precision", "int8", "--calibration-images", data, "-o", made
        ],
    }  # fmt: skip
    refused(ltmp(command, *given[command], *flags), message, code)
    assert left(files) == before


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["eval", "m.onnx", "--data", "unlabelled.npz", *RAY], "has no labels"),
        (
            ["calibrate", "c.pth.tar", "--images", "a.npz", "--latency-target", "0.6", *RAY],
            "times are measured on this machine; drop --engine",
        ),
        (
            ["calibrate", "c.pth.tar", "--images", "a.npz", "--reduction-target", "0.6", *RAY,
             "--device", "cuda"],
            "processes of a cluster run on CPUs; drop --device cuda",
        ),
        (
            ["export", "c.pth.tar", "--precision", "int8", "--calibration-images", "cut.tar", *RAY],
            "cut.tar is no readable tar",
        ),
        (["export", "c.pth.tar", *RAY], "are about the scales of --precision int8"),
        (["export", "c.pth.tar", "--workers", "2"], "give --engine ray, too"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(
    files: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], message: str
) -> None:
    monkeypatch.chdir(files)
    monkeypatch.setattr(cluster, "connected", lambda *_: contextlib.nullcontext(1))
    before = left(files)
    refused(ltmp(*command), message)
    assert left(files) == before


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
    with cluster.connected(Place("ray", address, 1)):
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
