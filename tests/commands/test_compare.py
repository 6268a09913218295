"""`compare` and its command: methods that need no training, at targets of their work."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import pytest
import torch

from ltmp_export import Choices, Settings, compare, evaluate, export, load_checkpoint
from ltmp_export.commands import compare as command
from ltmp_export.families import training_free
from ltmp_export.images import sets
from ltmp_export.plan.work import share
from tests.conftest import load_torch
from tests.makers.calibrated import CHOICES, EMBEDDED
from tests.makers.commands import left, ltmp, refused, succeeded

SHORT = ("-b", "1,2", "--iterations", "1", "--threads", "1")


def test_what_needs_no_training() -> None:
    assert {"diffrate", "m", "p", "mp", "pm", "topk", "evit", "multiscale_mergence"} <= set(
        training_free()
    )
    assert not {"ltmp", "dynamicvit", "sit", "ltm_transformer", "pmvit"} & set(training_free())


@pytest.fixture
def base(digits_folder: Path) -> Path:
    return digits_folder / "base.pth"


def test_table_json_and_plot(base: Path) -> None:
    """A row is what the commands give one by one; what cannot be says why; a picture.

    File and images are read once for all methods.
    """
    with (
        mock.patch.object(command, "load_checkpoint", wraps=load_checkpoint) as read,
        mock.patch.object(sets, "held_out", wraps=sets.held_out) as opened,
    ):
        found = ltmp(
            "compare", base, "--data", "digits.npz", "--targets", "0.25", "--methods", "tome,topk",
            "--merge-at", "2,4", "--samples", "16", *SHORT, "--json", "c.json", "--plot", "c.svg",
            "--mean", "0.5", "--std", "0.5",
        )  # fmt: skip
    shown = succeeded(found)
    assert (read.call_count, opened.call_count) == (1, 1)
    dense, merged, cannot = json.loads(Path("c.json").read_text())["rows"]
    assert [dense["family"], merged["family"], cannot["family"]] == ["dense", "m", "topk"]
    assert cannot["reason"].startswith("--reduction-target 0.25: blocks 2, 4 cannot leave")
    assert "0.25: topk cannot: --reduction-target 0.25" in shown
    export(base, "m.onnx", choices=Choices(family="m", reduction_target=0.25).over(CHOICES))
    alone = evaluate("m.onnx", EMBEDDED, samples=16)
    assert (merged["top1"], merged["mac_ratio"]) == (alone.top1, alone.mac_ratio)
    assert set(merged["ratio"]) == {"1", "2"}
    assert dense["ratio"] == {"1": 1.0, "2": 1.0}
    assert [line.split()[1] for line in shown.splitlines()[1:3]] == ["dense", "m"]
    assert "<svg" in Path("c.svg").read_text()
    assert "at a few blocks" not in shown  # they are stated, so not to be told


def test_features_by_their_cosine(base: Path) -> None:
    """A model without classifier needs no labels."""
    content = load_torch(base)
    content["state_dict"] = {
        key: value for key, value in content["state_dict"].items() if not key.startswith("head.")
    }
    torch.save(content, "features.pth")
    report = compare(
        "features.pth", EMBEDDED, (0.5,), methods=["p"], samples=4,
        settings=Settings(batch_sizes=(1,), iterations=1), choices=CHOICES,
    )  # fmt: skip
    dense, reduced = report.rows
    assert dense.cosine == pytest.approx(1.0)
    assert reduced.cosine is not None
    assert 0.5 < reduced.cosine < 1.0
    assert report.places == ()


@pytest.mark.parametrize("family", ["topk", "evit", "multiscale_mergence"])
def test_the_largest_keep_rate_within_a_target(family: str, base: Path) -> None:
    stated = Choices(family=family, merge_at=(1, 3, 4)).over(CHOICES)
    asked = Choices(reduction_target=0.55).over(stated)
    found = load_checkpoint(base, asked)
    rate = found.plan.stated["keep_rate"]
    assert share(found.geometry, found.plan) <= 0.55
    more = load_checkpoint(base, Choices(keep_rate=rate + 0.001).over(stated))
    assert share(more.geometry, more.plan) > 0.55


def test_refused(base: Path) -> None:
    """One line each, and nothing left behind."""
    start = ["compare", "base.pth", "--data", "digits.npz", *SHORT[:2]]
    before = left(base.parent)
    for more, message in (
        (
            ["--methods", "m,ltmp"],
            "no method 'ltmp' that needs no training; choose from diffrate",
        ),
        (["--methods", "m,"], "--methods 'm,': expected names of families"),
        (["--targets", "0.5,1.5"], "targets 0.5, 1.5; expected shares"),
        (["--targets", "0.5,0.5"], "targets 0.5, 0.5: one is there twice"),
        (["--targets", "half"], "--targets half: expected numbers"),
        (["--merge-at", "x"], "--merge-at x: expected whole numbers"),
        (["--plot", "c.gif"], "--plot c.gif: expected a name that ends in"),
        (["--samples", "0"], "0 samples asked for"),
        (["--iterations", "0"], "iterations is 0; expected at least 1"),
        (["--data", "nowhere"], "nowhere does not exist"),
    ):
        refused(ltmp(*start, *more), message)
    assert left(base.parent) == before
