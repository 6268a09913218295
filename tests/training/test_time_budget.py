"""Time as the budget: by the model that calibration fits, differentiated."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ltmp_export.plan.plan import dense_plan
from ltmp_export.plan.times import Load, TimeModel, linear_work, loads
from ltmp_export.timing import tables
from ltmp_export.timing.tables import Batch, Point, TimeTable
from ltmp_export.training import history
from ltmp_export.training.budget import time_share
from tests.conftest import load_torch
from tests.makers import finetuned, random_vits
from tests.makers.benched import ENVIRONMENT
from tests.makers.commands import ltmp, refused, succeeded
from tests.makers.trainers import SETTINGS, trainer

_, VIT = random_vits.build(finetuned.CASE)
ATTENTION, MLP = linear_work(VIT)
WHOLE = loads(VIT, dense_plan(VIT.depth), [[VIT.tokens] * VIT.depth], 1)
RAW = TimeModel(0.2, received=1e-7 * ATTENTION, squared=1e-5, kept=1e-7 * MLP, dense=1.0)
TIME = replace(RAW, dense=RAW.milliseconds(WHOLE))  # as if reducing cost nothing
FLAGS = finetuned.FLAGS[2:]  # behind the target
LINE = ("finetune", "base.pth", "--data", "data.npz", "-o", "out.pth.tar", *FLAGS)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user stands who fine-tunes, with times of an ltmp file."""
    finetuned.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    write(table())
    return tmp_path


def table(**changes: Any) -> TimeTable:
    """What a machine would give that keeps to the model of time."""
    points = []
    for share in (1.0, 0.8, 0.6, 0.4):
        given = tuple(Load(share * n, (share * n) ** 2, share * k) for n, _, k in WHOLE)
        points.append(Point(f"{share}", given, TIME.milliseconds(given)))
    made = TimeTable(
        geometry=tables.shape(VIT), family="ltmp", precision="fp32", single=False,
        runtime="onnxruntime 1.32.0", providers=("CPUExecutionProvider",), threads=1, rounds=5,
        images="made up", batches=(Batch(1, TIME.dense, 0.0, tuple(points)),),
        environment=ENVIRONMENT, versions={},
    )  # fmt: skip
    return replace(made, **changes)


def write(made: TimeTable) -> None:
    Path("t.json").write_text(json.dumps(made.to_json()))


def test_the_share_is_that_of_counts() -> None:
    """Of images of equal counts, one at a time."""
    counts = [VIT.tokens - 3, 9, 5, 4]
    kept = torch.tensor(counts, dtype=torch.float64) / VIT.tokens
    wanted = TIME.share(loads(VIT, dense_plan(VIT.depth), [counts], 1))
    assert float(time_share(VIT, TIME, kept)) == pytest.approx(wanted)
    assert float(time_share(VIT, TIME, torch.ones(4, dtype=torch.float64))) == pytest.approx(1.0)


def test_fewer_tokens_anywhere_take_less_time() -> None:
    kept = torch.full((VIT.depth,), 0.5, requires_grad=True)
    time_share(VIT, TIME, kept).backward()  # type: ignore[no-untyped-call]
    assert kept.grad is not None
    assert (kept.grad > 0).all()


def test_thresholds_learn_for_it() -> None:
    """The records tell both ratios, and survive being stored."""
    run = trainer(replace(SETTINGS, time=TIME, budget_weight=100.0, epochs=6))
    records = list(run.run())
    first, last = records[0].terms["time_share"], records[-1].terms["time_share"]
    assert abs(last - SETTINGS.reduction_target) < abs(first - SETTINGS.reduction_target)
    assert last != pytest.approx(records[-1].mac_ratio, abs=1e-3)
    kinds = tuple(records[-1].thresholds)
    again = history.from_tensor(history.to_tensor(records), kinds, run.goal.terms)
    assert again[-1].terms == pytest.approx(records[-1].terms)
    assert "time" not in SETTINGS.to_json()  # so that earlier runs can be gone on with


def test_as_typed(here: Path) -> None:
    (batch,) = table().batches
    write(table(single=True, precision="int8", batches=(replace(batch, twins=0.05),)))
    given = ("--latency-target", "0.8", "--timing", "t.json", "--json", "f.json")
    options = "--precision int8 --batch-size 1"
    result = ltmp(*LINE, *given)
    said = succeeded(result)
    assert "two identical files differ by 5.0%, more than 2%" in result.stderr
    assert "of its time is predicted (target 80.0%)" in said
    assert f"Next: ltmp export out.pth.tar {options}" in said
    report = json.loads((here / "f.json").read_text())
    assert 0.2 < report["time_share"] < 1.0
    top = load_torch(here / "out.pth.tar")
    assert top["ltmp"]["result"]["time_share"] == report["time_share"]
    assert top["ltmp"]["result"]["options"] == options
    assert top["ltmp"]["run"]["time"]["dense"] == pytest.approx(TIME.dense)
    assert vars(top["args"])["latency_target"] == 0.8
    with (here / "out.pth.tar.csv").open() as file:
        assert all(0 < float(row["time_share"]) < 1.1 for row in csv.DictReader(file))


BAD = {
    "no times": ("--latency-target 0.8", "--latency-target needs --timing FILE.json"),
    "times of nothing": ("--reduction-target 0.8 --timing t.json", "--timing is about --latency-"),
    "both": ("--latency-target 0.8 --timing t.json --reduction-target 0.8", "in the place of --r"),
    "percent": ("--latency-target 80 --timing t.json", "a reduction target of 80; expected the"),
    "of another family": (
        "--latency-target 0.8 --timing t.json --family ltp",
        "of family ltmp, an",
    ),
    "no table": ("--latency-target 0.8 --timing data.npz", "data.npz is not JSON"),
    "nothing there": ("--latency-target 0.8 --timing no.json", "no.json does not exist"),
    "shard": ("--latency-target 0.8 --timing t.json --data cut.tar", "cut.tar is no readable tar"),
}


@pytest.mark.parametrize(("line", "message"), BAD.values(), ids=BAD)
def test_refuses(here: Path, line: str, message: str) -> None:
    (here / "cut.tar").write_bytes(b"no shard")
    refused(ltmp(*LINE, *line.split()), message)
    assert not (here / "out.pth.tar").exists()


def test_times_of_several_batches_are_refused(here: Path) -> None:
    one = table().batches[0]
    write(table(batches=(one, replace(one, size=8))))
    result = ltmp(*LINE, "--latency-target", "0.8", "--timing", "t.json")
    refused(result, "has times of batches of 1, 8, and one is the budget; write it with one")
