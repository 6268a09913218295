"""`finetune` and its command: the files it writes, where it starts, what it says."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ltmp_export import export, inspect, load_checkpoint
from ltmp_export.commands.finetune import finetune
from ltmp_export.errors import InputError
from ltmp_export.statements.choices import Choices
from ltmp_export.training import state
from ltmp_export.training.record import Record
from tests.conftest import load_torch
from tests.makers.commands import command, ltmp, said
from tests.makers.finetuned import CHOICES, FLAGS, SETTINGS, learn


class TestFiles:
    def test_checkpoint_is_that_of_the_authors_script(self, here: Path) -> None:
        report = learn(name="vit_small_thing")
        top = load_torch(here / "out.pth.tar")
        assert {"epoch", "arch", "state_dict", "optimizer", "version", "args", "metric"} <= set(top)
        assert (top["epoch"], top["arch"], top["version"]) == (2, "ltmp_vit_small_thing", 2)
        assert top["metric"] == pytest.approx(100 * report.accuracy)
        args = vars(top["args"])
        assert (args["model"], args["num_classes"], args["img_size"]) == (top["arch"], 5, 24)
        assert (args["tau"], args["reduction_target"], args["mean"]) == (0.1, 0.8, [0.5] * 3)
        groups = top["optimizer"]["param_groups"]
        assert [group["initial_lr"] for group in groups] == [0.02, 1e-3]
        assert [group["params"] for group in groups] == [[0, 1, 2, 3], [4, 5, 6, 7]]
        found = load_checkpoint("out.pth.tar").found
        assert "optimizer of 8 parameters, not read" in found
        dense = load_torch(here / "base.pth")
        for key, value in dense.items():
            assert torch.equal(top["state_dict"][key], value)
        for kind, values in report.thresholds.items():
            for block, value in enumerate(values):
                stored = top["state_dict"][f"blocks.{block}.{kind}_masker.threshold"]
                assert stored.tolist() == [value]

    def test_says_where_it_comes_from(self, here: Path) -> None:
        report = learn()
        told = load_torch(here / "out.pth.tar")["ltmp"]
        assert told["command"] == "finetune"
        assert told["source"]["file"] == "base.pth"
        assert told["run"]["images"] == state_sha(here / "data.npz")
        assert told["run"]["reduction target"] == 0.8
        assert told["result"]["accuracy"] == report.accuracy
        found = inspect("out.pth.tar")["found"]
        assert any(line.startswith("made by ltmp finetune") for line in found)

    def test_goes_straight_into_export(self, here: Path) -> None:
        """Heads and normalisation come along, though no timm name tells them."""
        report = learn()
        checkpoint = load_checkpoint("out.pth.tar")
        assert checkpoint.plan.thresholds() == report.thresholds
        assert checkpoint.plan.family == "ltmp"
        assert checkpoint.vit.heads == 2
        assert checkpoint.preprocessing.mean == (0.5, 0.5, 0.5)
        exported = export("out.pth.tar", "model.onnx")
        assert exported.check is not None
        assert exported.check.passed()

    def test_history(self, here: Path) -> None:
        seen: list[Record] = []
        report = learn(watch=lambda record, total: seen.append(record))
        with report.history.open() as file:
            rows = list(csv.DictReader(file))
        assert report.steps == len(rows) == len(seen) == 9  # 30 images in threes of eight
        assert [int(row["step"]) for row in rows] == list(range(9))
        last = [float(rows[-1][f"prune_{block}"]) for block in range(4)]
        assert last == pytest.approx(report.thresholds["prune"], rel=1e-6)
        assert report.history.name == "out.pth.tar.csv"
        assert not state.beside(report.output).exists()

    def test_same_seed_same_bytes(self, here: Path) -> None:
        learn("a.pth.tar"), learn("b.pth.tar")
        assert (here / "a.pth.tar").read_bytes() == (here / "b.pth.tar").read_bytes()
        assert (here / "a.pth.tar.csv").read_bytes() == (here / "b.pth.tar.csv").read_bytes()

    @pytest.mark.parametrize("family", ["ltm", "ltp", "ltpm"])
    def test_families(self, here: Path, family: str) -> None:
        choices = replace(CHOICES, family=family)
        report = learn(choices=choices, settings=replace(SETTINGS, start={}))
        checkpoint = load_checkpoint("out.pth.tar")
        assert report.family == checkpoint.plan.family == family
        assert checkpoint.arch == f"{family}_vit"
        assert checkpoint.plan.thresholds() == report.thresholds

    def test_train_all_goes_into_the_file(self, here: Path) -> None:
        learn(settings=replace(SETTINGS, train_all=1e-3))
        dense, top = load_torch(here / "base.pth"), load_torch(here / "out.pth.tar")
        moved = [key for key in dense if not torch.equal(dense[key], top["state_dict"][key])]
        assert len(moved) > len(dense) / 2
        reduced = {k: v for k, v in top["state_dict"].items() if "threshold" in k}
        torch.save(top | {"state_dict": reduced}, "reduced.pth.tar")
        with pytest.raises(InputError, match=f"its optimizer trained {8 + len(dense)} parameters"):
            load_checkpoint("reduced.pth.tar", Choices(base_checkpoint=here / "base.pth"))


def state_sha(path: Path) -> str:
    from ltmp_export.files import disk

    return disk.sha256(path)


class TestStart:
    def test_the_familys_own(self, here: Path) -> None:
        still = replace(SETTINGS, start={}, lr={"merge": 0.0, "prune": 0.0})
        report = learn(settings=still)
        assert report.thresholds["merge"] == pytest.approx([0.9] * 4)
        assert report.thresholds["prune"] == [0.0] * 4

    def test_those_of_a_fine_tuned_checkpoint(self, here: Path) -> None:
        first = learn("first.pth.tar")
        still = replace(SETTINGS, start={}, lr={"merge": 0.0, "prune": 0.0})
        report = finetune("first.pth.tar", "data.npz", "again.pth.tar", still)
        assert report is not None
        assert report.thresholds == first.thresholds

    def test_warns_where_the_target_is_missed(self, here: Path) -> None:
        report = learn(settings=replace(SETTINGS, lr={"merge": 0.0, "prune": 0.0}))
        assert any("the target is 0.8: train longer" in warning for warning in report.warnings)


class TestCommand:
    def test_end_to_end(self, here: Path) -> None:
        arguments = ["finetune", "base.pth", "--data", "data.npz", *FLAGS, "--json", "r.json"]
        result = ltmp(*arguments)
        assert result.exit_code == 0, result.output
        assert "finetuned.pth.tar: ltmp, 9 steps" in result.stdout
        assert "Next: ltmp export finetuned.pth.tar" in result.stdout
        assert "step 9 of 9: loss" in result.stderr
        report = json.loads((here / "r.json").read_text())
        assert (report["schema_version"], report["kind"]) == (1, "finetune")
        assert 0 < report["mac_ratio"] <= 1
        assert ltmp("export", "finetuned.pth.tar").exit_code == 0

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (["--data", "nothing"], "nothing does not exist; expected a folder of class folders"),
            (["--reduction-target", "60"], "a reduction target of 60; expected the share"),
            (
                ["--family", "ltpmm"],
                "no family 'ltpmm'; choose from ats, ",
            ),
            (["-o", "base.pth"], "the output base.pth is the input base.pth"),
            (["-b", "64"], "30 images to train on, fewer than a batch of 64"),
            (["--num-heads", "7"], "7 heads (--num-heads) do not divide"),
            (["--device", "tpu"], "no device 'tpu'"),
            (["--held-out", "1.5"], "a share of 1.5 to hold out"),
            (["--name", "deit_tiny_patch16_224"], "timm knows deit_tiny_patch16_224: drop --name"),
            (["--save-every", "0"], "a state every 0 steps; expected at least 1"),
            (["--family", "ltp"], "family ltp has no merge thresholds; drop --start-merge"),
            (["--val", "base.pth"], "base.pth has no array 'images'"),
        ],
    )
    def test_refused_in_one_line(self, here: Path, change: list[str], says: str) -> None:
        before = sorted(here.iterdir())
        arguments = ["finetune", "base.pth", "--data", "data.npz", *FLAGS, *change]
        result = ltmp(*arguments)
        assert result.exit_code == 2
        (line,) = said(result.stderr)
        assert says in line
        assert sorted(here.iterdir()) == before

    def test_pictures_in_folders(self, here: Path) -> None:
        """Augmented, read by two more processes, and the same with none."""
        rng = np.random.default_rng(0)
        for part, count in (("train", 4), ("val", 2)):
            for label in range(5):
                place = here / "photos" / part / f"class {label}"
                place.mkdir(parents=True)
                for number in range(count):
                    pixels = rng.integers(0, 255, (30, 36, 3), np.uint8)
                    Image.fromarray(pixels).save(place / f"{number}.png")
        written = []
        for name, workers in (("a", "0"), ("b", "2")):
            output = f"{name}.pth.tar"
            arguments = ["finetune", "base.pth", "--data", "photos", *FLAGS, "-o", output]
            arguments += ["--workers", workers, "--augment", "rand-m9-mstd0.5"]
            result = ltmp(*arguments)
            assert result.exit_code == 0, result.output
            assert "on 10 images held out" in result.stdout
            written.append((here / output).read_bytes())
        assert written[0] == written[1]

    def test_an_interrupt_can_be_resumed(self, here: Path) -> None:
        """Ctrl-C in a process of its own, then --resume: as if there had been none."""
        many = [*FLAGS, "--epochs", "20", "--save-every", "1"]
        arguments = ["finetune", "base.pth", "--data", "data.npz", *many]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here
        running = command(*arguments, "-o", "out.pth.tar", cwd=here, env=one_thread)
        deadline = time.monotonic() + 120
        made = [here / f"out.pth.tar.{part}" for part in ("state", "csv")]  # in this order
        while not all(path.exists() for path in made):
            assert time.monotonic() < deadline
            assert running.poll() is None, running.communicate()
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        _, stderr = running.communicate(timeout=60)
        assert running.returncode == 130, stderr
        assert stderr.strip().endswith("interrupted")
        left = sorted(path.name for path in here.iterdir())
        assert left == ["base.pth", "data.npz", "out.pth.tar.csv", "out.pth.tar.state"]
        for more in (("-o", "out.pth.tar", "--resume"), ("-o", "whole.pth.tar")):
            done = ltmp(*arguments, *more)
            assert done.exit_code == 0, done.output
        assert (here / "out.pth.tar").read_bytes() == (here / "whole.pth.tar").read_bytes()

    def test_two_processes_learn_what_one_does(self, here: Path) -> None:
        """The same steps but for the order of sums, each in two parts; weights learn in one."""
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        torchrun += ["--nproc-per-node", "2", "-m", "ltmp_export.finetune"]
        one = learn("one.pth.tar")
        given = ["base.pth", "--data", "data.npz", *FLAGS, "--device", "cpu"]
        run = subprocess.run(
            [*torchrun, *given, "-o", "two.pth.tar", "--accumulate", "2"],
            cwd=here, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert run.stdout.count("Next: ltmp export") == 1  # one process reports
        two = load_checkpoint("two.pth.tar").plan.thresholds()
        for kind, values in one.thresholds.items():
            assert values == pytest.approx(two[kind], abs=1e-6)
        assert (here / "two.pth.tar.csv").read_text().count("\n") == 10

    def test_module_is_the_command(self, here: Path) -> None:
        code = "import runpy; runpy.run_module('ltmp_export.finetune', run_name='__main__')"
        running = command("nothing.pth", "--data", "data.npz", *FLAGS, code=code, cwd=here)
        _, stderr = running.communicate(timeout=120)
        assert running.returncode == 2
        assert "error: nothing.pth does not exist" in stderr
