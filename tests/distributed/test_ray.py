"""One cluster of this machine: any number of processes, one of them killed, give the same JSON."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ltmp_export import calibrate, export
from ltmp_export.calibration import crew
from ltmp_export.calibration.targets import Spread
from ltmp_export.commands.eval import evaluate
from ltmp_export.distributed import cluster, stream
from ltmp_export.distributed.cluster import Place
from ltmp_export.errors import ExportError, InputError
from ltmp_export.precision.formats import Precision
from ltmp_export.statements.choices import Choices
from tests.conftest import DIGITS_LTMP, load_torch
from tests.makers import packed
from tests.makers.commands import ltmp, refused
from tests.makers.shallow import write_shallow


def by_value(function: Any) -> None:
    """Let processes of a cluster get it without this module, and what it imports."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[function.__module__])


def without_time(report: Any) -> str:
    return json.dumps(report.to_json() | {"seconds": None})


NORMALISED = Choices(mean=(0.5,) * 3, std=(0.5,) * 3)


class Killer:
    """Kills the process that was ready first, as soon as a message begins so."""

    def __init__(self, when: str) -> None:
        self.when = when
        self.told: list[str] = []
        self.victim = 0

    @property
    def killed(self) -> bool:
        """Whether it did, and that was noticed."""
        return self.victim == -1 and "a worker was lost; its task is given again" in self.told

    def __call__(self, message: str) -> None:
        self.told.append(message)
        if found := re.match(r"worker \d+: process (\d+) on", message):
            self.victim = self.victim or int(found[1])
        elif message.startswith(self.when) and self.victim > 0:
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


def endpoint() -> Callable[[str], str | None]:
    """What the environment says."""
    return os.environ.get


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of three processors, which this process is connected to."""
    if importlib.util.find_spec("ray") is None and "LTMP_REQUIRE_BROWSER" not in os.environ:
        pytest.skip("there is no Python package ray; pip install '.[test]'")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 3, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        started = Cluster(initialize_head=True, head_node_args=head)
        try:
            with cluster.connected(Place("ray", started.address, 3)):
                yield started.address
        finally:
            started.shutdown()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_shallow(DIGITS_LTMP, tmp_path / "c.pth.tar")
    return tmp_path / "c.pth.tar"


def test_eval_gives_the_same_json_whoever_works_and_fails(
    tmp_path: Path, checkpoint: Path, address: str
) -> None:
    model, data = tmp_path / "m.onnx", packed.digits_shards(tmp_path / "shards", 72, 3)
    export(checkpoint, model, check=False)
    given: dict[str, Any] = {"batch_size": 3, "threads": 1}
    here = without_time(evaluate(model, data, **given))
    for workers in (1, 2, 3):
        killer = Killer("image " if workers == 2 else "never")
        there = evaluate(
            model, data, **given, place=Place("ray", address, workers), progress=killer
        )
        assert without_time(there) == here
        assert killer.killed == (workers == 2)
    with pytest.raises(InputError, match="4 workers, but the Ray cluster has 3 processors"):
        evaluate(model, data, place=Place("ray", workers=4))


def test_int8_scales_are_the_same_whoever_works(
    tmp_path: Path, checkpoint: Path, address: str
) -> None:
    images = packed.digits_shards(tmp_path / "shards", 24, 3)
    given: dict[str, Any] = {"calibration_images": images, "check": False}
    given |= {"precision": Precision("int8"), "choices": NORMALISED}
    export(checkpoint, tmp_path / "here.onnx", **given)
    export(checkpoint, tmp_path / "there.onnx", **given, place=Place("ray", address, 2))
    assert (tmp_path / "there.onnx").read_bytes() == (tmp_path / "here.onnx").read_bytes()


def test_thresholds_are_the_same_whoever_works_and_fails(
    tmp_path: Path, checkpoint: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By scores, which processes hold the tokens for: a new one has to begin again."""
    images = packed.digits_shards(tmp_path / "shards", 104, 3)
    given: dict[str, Any] = {"spread": Spread(method="quantiles", samples=104)}
    given |= {"choices": NORMALISED}
    here = calibrate(checkpoint, images, [0.7], tmp_path / "here.pth.tar", **given)
    killer, look = Killer("a look"), crew.Elsewhere.look

    def watched(self: Any, taken: tuple[float, ...]) -> Any:
        if len(taken) == 3:
            killer("a look")
        return look(self, taken)

    monkeypatch.setattr(crew.Elsewhere, "look", watched)
    there = calibrate(
        checkpoint, images, [0.7], tmp_path / "there.pth.tar",
        **given, place=Place("ray", address, 2), progress=killer,
    )  # fmt: skip
    assert killer.killed
    assert without_time(replace(there, output=None)) == without_time(replace(here, output=None))
    found, wanted = (load_torch(tmp_path / f"{name}.pth.tar") for name in ("there", "here"))
    torch.testing.assert_close(found["state_dict"], wanted["state_dict"], rtol=0, atol=0)
    shard = images / "digits-002.tar"
    shard.write_bytes(shard.read_bytes()[:-12_000])
    told = ltmp(
        "calibrate", checkpoint, "--images", images, "--reduction-target", 0.7, "--engine", "ray",
        "--workers", 1, "--mean", 0.5, "--std", 0.5, "-o", tmp_path / "none.pth.tar",
    )  # fmt: skip
    refused(told, "digits-002.tar is no readable tar")
    assert not (tmp_path / "none.pth.tar").exists()


def test_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """In their order, given again, refused."""
    by_value(squares)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://here")  # which the cluster began without
    assert list(stream.results(endpoint, ["AWS_ENDPOINT_URL"], 1)) == ["http://here"]
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
