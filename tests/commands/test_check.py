"""`ltmp check` as a user types it: verdicts, reports, what is saved to be replayed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import onnx
import pytest
import torch

from ltmp_export import load_checkpoint
from ltmp_export.images import inputs
from ltmp_export.steps.prune.step import Prune
from tests.commands.conftest import CKPT
from tests.conftest import load_torch
from tests.makers.commands import ltmp, refused
from tests.makers.edge_cases import on_the_threshold
from tests.makers.make_checkpoint import small_vit
from tests.makers.mutations import change_stored


def test_check_reports(folder: Path) -> None:
    ltmp("export", CKPT)
    result = ltmp(
        "check", "model.onnx", CKPT, "--samples", "4", "-b", "1,3", "--json", "c.json",
        "--junit", "c.xml", "--strict",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("equal: every decision and every number")
    assert len(json.loads(Path("c.json").read_text())["comparisons"]) == 12
    assert ElementTree.parse("c.xml").getroot().get("tests") == "6"


def test_check_of_another_checkpoint_fails(folder: Path) -> None:
    ltmp("export", CKPT)
    top = load_torch(Path(CKPT))
    state = dict(top["state_dict"])
    state["blocks.1.prune_masker.threshold"] = torch.tensor([0.02])
    torch.save(top | {"state_dict": state}, "other.pth")
    result = ltmp("check", "model.onnx", "other.pth", "--samples", "4", "--junit", "c.xml")
    assert result.exit_code == 1
    assert "fail digit 0" in result.stdout
    assert "block 1: token" in result.stdout
    assert "block 1: the prune threshold is 0.00637" in result.stdout.splitlines()[-1]
    assert "exported from another file" in result.stderr
    assert "different thresholds" in result.stderr
    assert ElementTree.parse("c.xml").getroot().get("failures") != "0"


def test_check_of_another_family_fails(folder: Path) -> None:
    ltmp("export", CKPT, "--no-check", "--family", "ltpm")
    assert ltmp("check", "model.onnx", CKPT, "--samples", "4").exit_code == 0  # as exported
    result = ltmp("check", "model.onnx", CKPT, "--samples", "4", "--family", "ltmp")
    assert result.exit_code == 1
    assert "model.onnx is ltpm, not ltmp" in result.stderr
    assert result.stdout.startswith("fail: the file does not compute")
    assert "the file's blocks take the steps of ltpm, the checkpoint's of ltmp" in result.stdout


def test_a_failing_image_is_saved_and_replayed(folder: Path) -> None:
    ltmp("export", CKPT, "--no-check")
    model = onnx.load("model.onnx")
    change_stored(model, "block_03/merge_threshold", lambda array: array.fill(0.5))
    onnx.save(model, "wrong.onnx")
    saved = ltmp("check", "wrong.onnx", CKPT, "--samples", "3", "-b", "2", "--save-repro", "r")
    assert saved.exit_code == 1
    assert "block 3: the merge threshold is 0.5 in the file" in saved.stdout
    assert saved.stderr.splitlines()[-1].endswith("again: ltmp check --repro r")
    again = ltmp("check", "--repro", "r", "--json", "r.json")
    assert again.exit_code == 1
    assert "warning: saved as: fail at row 0: block 3: token" in again.stderr
    assert json.loads(Path("r.json").read_text())["comparisons"][0]["block"] == 3
    assert ltmp("check", "model.onnx", "--repro", "r").exit_code == 0
    fine = ltmp("check", "model.onnx", CKPT, "--samples", "2", "--save-repro", "s")
    assert fine.exit_code == 0
    assert fine.stderr.splitlines()[-1] == "s: not written, no image to blame"
    assert not Path("s").exists()


def test_borderline_passes_unless_strict(
    folder: Path, content: dict[str, Any], write: Callable[[Mapping[str, Any]], Path]
) -> None:
    """A checkpoint whose threshold is the score of a token of the first image, as float32."""
    images = inputs.embedded_digits()
    edge = on_the_threshold(load_checkpoint(CKPT), images, Prune)
    score = torch.tensor(edge.plan.thresholds()["prune"][:1])
    content["state_dict"]["blocks.0.prune_masker.threshold"] = score
    checkpoint = write(content)
    exported = ltmp("export", checkpoint)
    assert exported.exit_code == 0, exported.stderr
    assert "check: borderline on 7 images" in exported.stdout
    few = ("--samples", "2", "-b", "1,2", "--junit", "c.xml")
    checked = ltmp("check", "model.onnx", checkpoint, *few)
    assert checked.exit_code == 0
    assert "  borderline digit 0 (a 2), batches 1, 2, 2 reversed: block 0: token" in checked.stdout
    assert "\nborderline: 3 of 6 comparisons hold decisions that differ" in checked.stdout
    assert ElementTree.parse("c.xml").getroot().get("failures") == "0"
    strict = ltmp("check", "model.onnx", checkpoint, *few, "--strict", "--save-repro", "r")
    assert strict.exit_code == 1
    assert ElementTree.parse("c.xml").getroot().get("failures") == "3"
    assert ltmp("check", "--repro", "r").exit_code == 0
    assert ltmp("check", "--repro", "r", "--strict").exit_code == 1


def test_a_file_without_its_tensors_is_judged_by_its_outputs(folder: Path) -> None:
    ltmp("export", CKPT, "--no-check")
    Path("m.onnx").write_bytes(Path("model.onnx").read_bytes().replace(b"/partner", b"/destiny"))
    result = ltmp("check", "m.onnx", CKPT, "--samples", "2", "-b", "1,2", "--save-repro", "r")
    assert result.exit_code == 0
    assert "lacks the named tensor block_00/partner and 5 more" in result.stderr
    assert "proved at outputs only" in result.stdout
    assert not Path("r").exists()


@pytest.mark.parametrize(("value", "expected"), [("true", 1), ("", 0), ("false", 0)])
def test_annotations_where_github_reads_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, value: str, expected: int
) -> None:
    ltmp("export", CKPT, "--no-check")
    model = onnx.load("model.onnx")
    change_stored(model, "blocks.1.mlp.fc2.bias", lambda array: array.fill(0.5))
    onnx.save(model, "wrong.onnx")
    monkeypatch.setenv("GITHUB_ACTIONS", value)
    result = ltmp("check", "wrong.onnx", CKPT, "--samples", "1", "-b", "1")
    lines = [line for line in result.stdout.splitlines() if line.startswith("::error ")]
    assert len(lines) == 2 * expected
    assert "the file's blocks.1.mlp.fc2.bias differs from the checkpoint's by" in result.stdout


def test_a_model_of_another_shape_is_no_check(folder: Path) -> None:
    ltmp("export", CKPT, "--no-check")
    for kwargs, message in {
        (7, 6): "classes 10, the checkpoint small.pth has 7",
        (10, 2): "depth 6, the checkpoint small.pth has 2",
    }.items():
        small_vit(folder / "small.pth", num_classes=kwargs[0], depth=kwargs[1])
        refused(ltmp("check", "model.onnx", "small.pth"), message)
