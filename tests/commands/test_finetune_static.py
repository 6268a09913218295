"""`finetune` of whole models under a static plan: the file, resuming, what is refused."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ltmp_export import check, export, load_checkpoint
from ltmp_export.commands.finetune import FinetuneReport, finetune
from ltmp_export.errors import InputError
from ltmp_export.finetune import StaticSettings
from ltmp_export.statements.choices import Choices
from ltmp_export.training import state
from tests.conftest import load_torch
from tests.makers import finetuned, hybrids
from tests.makers.commands import ltmp, said
from tests.makers.finetuned import CHOICES
from tests.makers.interruptions import LostError, stop_after

FLAGS = ("--held-out", "0.25", "--num-heads", "2", "--mean", "0.5", "--std", "0.5", "-b", "8")
MERGENCE = ("--family", "multiscale_mergence", "--merge-at", "1,2", "--keep-rate", "0.5")
MASKS = ("--family", "ltm_transformer", "--compression-ratio", "0.25")
SETTINGS = StaticSettings(epochs=2, batch_size=8, lr=1e-3, lr_new=0.02, distil=0.5, held_out=0.25)
MASKED = replace(CHOICES, family="ltm_transformer", compression_ratio=0.25, restore=True)
MERGED = replace(CHOICES, family="multiscale_mergence", merge_at=(1,), keep_rate=0.5)


def train(output: str = "out.pth.tar", **options: Any) -> FinetuneReport:
    """Train the base.pth of the current folder on its data.npz."""
    given: dict[str, Any] = {"choices": MASKED, "settings": SETTINGS} | options
    report = finetune("base.pth", "data.npz", output, **given)
    assert report is not None
    return report


class TestFiles:
    @pytest.mark.parametrize(
        ("family", "more", "args"),
        [
            (
                MERGENCE,
                ("--merge-weights", "size"),
                {"keep_rate": 0.5, "merge_at": [1, 2], "merge_weights": "size"},
            ),
            (
                MASKS,
                ("--hard",),
                {"compression_ratio": 0.25, "hard": True, "restore": False, "merge_at": [1]},
            ),
            (
                MASKS,
                ("--restore", "--distil", "0.5", "--lr-new", "0.02"),
                {"compression_ratio": 0.25, "hard": False, "restore": True},
            ),
        ],
        ids=["mergence", "hard", "restored"],
    )
    def test_goes_straight_into_export(
        self, here: Path, family: Sequence[str], more: Sequence[str], args: dict[str, Any]
    ) -> None:
        """The command, and then without a further word: the plan, its weights, a file equal."""
        result = ltmp("finetune", "base.pth", "--data", "data.npz", *FLAGS, *family, *more)
        assert result.exit_code == 0, result.output
        assert f"finetuned.pth.tar: {family[1]}, 3 steps" in result.stdout
        top = load_torch(here / "finetuned.pth.tar")
        assert top["arch"] == f"{family[1]}_vit"
        assert args.items() <= vars(top["args"]).items()
        trained = load_checkpoint("finetuned.pth.tar")
        flags = dict(zip(family[::2], family[1::2], strict=True))
        assert trained.plan.family == flags["--family"]
        assert not trained.warnings
        base = load_torch(here / "base.pth")
        assert not any(torch.equal(base[key], top["state_dict"][key]) for key in base)
        assert trained.plan.parameters.keys() <= top["state_dict"].keys()
        export("finetuned.pth.tar", "model.onnx", check=False)
        assert check("model.onnx", "finetuned.pth.tar", samples=3).passed()

    def test_a_target_picks_the_rate_that_is_kept(self, here: Path) -> None:
        choices = replace(MERGED, keep_rate=None, reduction_target=0.8)
        report = train(choices=choices, settings=replace(SETTINGS, lr_new=None))
        assert report.target is None
        assert 0.75 < report.mac_ratio <= 0.8
        args = vars(load_torch(here / "out.pth.tar")["args"])
        assert "reduction_target" not in args
        again = load_checkpoint("out.pth.tar").plan
        assert again == load_checkpoint("base.pth", choices).plan
        assert args["keep_rate"] == again.stated["keep_rate"]

    def test_goes_on_from_its_own_output(self, here: Path) -> None:
        """Without a word, where the first run ended, its plan and all of its weights."""
        train("first.pth.tar")
        still = replace(SETTINGS, lr=0.0, lr_new=0.0)
        report = finetune("first.pth.tar", "data.npz", "again.pth.tar", still)
        assert report is not None
        assert report.family == "ltm_transformer"
        first, again = (load_torch(here / f"{n}.pth.tar")["state_dict"] for n in ("first", "again"))
        assert all(torch.equal(first[key], again[key]) for key in first)

    def test_history(self, here: Path) -> None:
        report = train()
        with report.history.open() as file:
            rows = list(csv.DictReader(file))
        assert report.steps == len(rows) == 6
        for row in rows:
            both = 0.5 * float(row["cross_entropy"]) + 0.5 * float(row["distillation"])
            assert float(row["loss"]) == pytest.approx(both, rel=1e-6)
            assert float(row["mac_ratio"]) == pytest.approx(report.mac_ratio)


class TestResume:
    @pytest.mark.parametrize("step", [5, 7])
    def test_bit_for_bit(self, here: Path, step: int) -> None:
        """At the end of an epoch, and inside the one in which what was added up before counts."""
        settings = replace(SETTINGS, epochs=3, bottleneck=0.1)
        train("whole.pth.tar", settings=settings)
        with pytest.raises(LostError):
            train(settings=settings, save_every=2, watch=stop_after(step))
        train(settings=settings, resume=True)
        for name in ("pth.tar", "pth.tar.csv"):
            whole, out = (here / f"{start}.{name}" for start in ("whole", "out"))
            assert whole.read_bytes() == out.read_bytes()
        assert not state.beside(here / "out.pth.tar").exists()

    def test_of_another_plan(self, here: Path) -> None:
        with pytest.raises(LostError):
            train(save_every=2, watch=stop_after(4))
        for other, says in (
            (replace(MASKED, compression_ratio=0.5), "compression ratio 0.25, not 0.5"),
            (replace(MASKED, hard=True), "hard false, not true"),
            (replace(MASKED, restore=None, merge_at=(2,)), "restore true, not false"),
        ):
            with pytest.raises(InputError, match=f"is of a run with {says}"):
                train(choices=other, resume=True)


class TestRefused:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ((*MERGENCE, "--lr-merge", "0.1"), "--lr-merge is for thresholds, which multiscale"),
            ((*MASKS, "--paper"), "--paper is for thresholds, which ltm_transformer has none of"),
            ((*MERGENCE, "--lr-new", "0.1"), "multiscale_mergence has no weights of its own that"),
            ((*MERGENCE, "--distil", "2"), "distillation weighs 2; expected"),
            ((*MASKS, "--bottleneck", "0.1"), "the bottleneck knows the classes from the third"),
            ((*MERGENCE, "--compression-ratio", "0.5"), "takes no --compression-ratio; drop it"),
            ((*MERGENCE, "--reduction-target", "0.5"), "--keep-rate and --reduction-target say"),
            (("--family", "ltmp"), "thresholds of ltmp learn for a share of the multiply-acc"),
            (("--reduction-target", "0.5", "--distil", "0.5"), "--distil is for weights under a"),
            (("--reduction-target", "0.5", "--keep-rate", "0.5"), "--keep-rate: state the family"),
            (("--family", "m", "--r", "8"), "family m has no thresholds to make; it needs none"),
            (("--family", "pmvit"), "base.pth holds no weights of pmvit"),
            (("--family", "evit"), "family evit cannot be trained; of dense weights ltm, ltmp, "),
        ],
    )
    def test_in_one_line(self, here: Path, arguments: Sequence[str], says: str) -> None:
        before = sorted(here.iterdir())
        result = ltmp("finetune", "base.pth", "--data", "data.npz", *FLAGS, *arguments)
        assert result.exit_code == 2
        (line,) = said(result.stderr)
        assert says in line
        assert sorted(here.iterdir()) == before

    def test_other_networks(self, here: Path) -> None:
        torch.save(hybrids.mobilevit().state_dict(), here / "m.pth")
        result = ltmp("finetune", "m.pth", "--data", "data.npz", *FLAGS, *MASKS)
        assert result.exit_code == 2
        assert "m.pth is a MobileViT: plain ViTs alone are trained here" in result.stderr

    def test_settings_of_the_other_kind(self, here: Path) -> None:
        with pytest.raises(InputError, match="multiscale_mergence has no thresholds to learn"):
            train(choices=MERGED, settings=finetuned.SETTINGS)
        with pytest.raises(InputError, match="family ltmp learns thresholds; train it with Set"):
            train(choices=Choices(num_heads=2, mean=(0.5,), std=(0.5,)))


def test_two_processes_learn_what_one_does(here: Path) -> None:
    """The same steps but for the order of sums; masks of which some idle."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", "2", "-m", "ltmp_export.finetune"]
    terms = ["--distil", "0.5", "--bottleneck", "0.1", "--epochs", "3"]
    given = ["base.pth", "--data", "data.npz", *FLAGS, *MASKS, "--restore", *terms]
    one = ltmp("finetune", *given, "-o", "one.pth.tar")
    assert one.exit_code == 0, one.output
    run = subprocess.run(
        [*torchrun, *given, "--device", "cpu", "-o", "two.pth.tar"],
        cwd=here, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    written = [(here / f"{name}.pth.tar.csv").read_text() for name in ("one", "two")]
    rows = [list(csv.DictReader(text.splitlines())) for text in written]
    for alone, shared in zip(*rows, strict=True):
        for figure in ("loss", "distillation", "bottleneck", "accuracy"):
            assert float(shared[figure]) == pytest.approx(float(alone[figure]), rel=1e-4)
