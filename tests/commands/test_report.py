"""`ltmp report`: a page from a file alone, or with its checkpoint; whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image

import ltmp_export
from ltmp_export import CheckFailedError, ExportError
from ltmp_export.commands import report as reporting
from ltmp_export.drawing.owned import Owners
from ltmp_export.images import inputs
from tests.commands.test_startup import MODELS
from tests.conftest import DIGITS_LTMP, cluster_layers, load_torch
from tests.makers.commands import left, ltmp, refused, run_without, succeeded
from tests.makers.pages import Page, require_policy, require_valid

NAME = 'a/<img src=x onerror=alert(1)>&".png'


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory, digits_base: Path, exported: Path, tuned: Path
) -> Path:
    """Files of the digits: ltmp.onnx of tuned.pth.tar, static tome.onnx, soft.onnx."""
    place = tmp_path_factory.mktemp("files")
    shutil.copy(exported, place / "ltmp.onnx")
    shutil.copy(tuned, place / "tuned.pth.tar")
    stated = ltmp_export.Choices(family="m", rate="8", num_heads=2)
    ltmp_export.export(digits_base, place / "tome.onnx", choices=stated, check=False, mode="static")
    torch.save(load_torch(digits_base) | cluster_layers(128, 24, 9), place / "soft.pth")
    soft = ltmp_export.Choices(
        family="patchmerger", merge_at=(2, 6), merge_scale="sqrt", num_heads=2, mean=(0.5,),
        std=(0.5,),
    )  # fmt: skip
    ltmp_export.export(place / "soft.pth", place / "soft.onnx", choices=soft, check=False)
    return place


@pytest.fixture
def here(tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user stands, with photos/ of two pictures, one of them of a hostile name."""
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    for name in (NAME, "c.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.tile(np.arange(90, dtype=np.uint8), (80, 1))).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def page(path: str = "report.html") -> Page:
    found = require_valid(Path(path).read_bytes())
    require_policy(found)
    return found


def document(path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(path).read_text())
    schema = resources.files("ltmp_export") / "schemas" / "report.schema.json"
    jsonschema.validate(found, json.loads(schema.read_text()))
    return found


def test_all_parts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    reader = inputs._from_folder

    def reading(source: Path, *rest: Any) -> inputs.Images:
        read.append(source)
        return reader(source, *rest)

    monkeypatch.setattr(inputs, "_from_folder", reading)
    told = succeeded(
        ltmp("report", "ltmp.onnx", "tuned.pth.tar", "--images", "photos", "-o", "r.html",
             "--samples", "2", "--bench", "--threads", "1", "--json", "r.json")
    )  # fmt: skip
    assert read == [Path("photos")]
    assert "r.html: 0." in told
    assert "check: equal, 2 images" in told
    found = page("r.html")
    parts = ["check", "model", "tokens", "pictures", "margins", "times", "assumed"]
    assert found.headings() == parts
    assert len(found.of("svg")) == 5  # thresholds of merging and of pruning apart
    images = found.of("img")
    assert len(images) == 2 * 7
    assert [image["alt"].startswith(NAME) for image in images] == [True] * 7 + [False] * 7
    assert NAME in found.texts
    assert len(found.of("input")) == 3
    facts = document("r.json")
    assert facts["output"] == "r.html"
    assert facts["check"]["verdict"] == "equal"
    assert facts["bench"]["kind"] == "bench"
    assert [one["image"] for one in facts["pictures"]["courses"]] == [NAME, "c.jpg"]
    kept = [[b["tokens"] for b in one["blocks"]] for one in facts["pictures"]["courses"]]
    assert facts["tokens"]["counts"] == kept
    assert facts["margins"]["count"] == 2


def test_of_a_file_alone_without_pytorch(here: Path) -> None:
    np.savez("i.npz", images=np.full((2, 32, 32, 3), 90, np.uint8))
    command = ["report", "tome.onnx", "--images", "i.npz", "--threads", "1"]
    assert "report.html: 0." in run_without(MODELS, [command])
    found = page()
    assert found.headings() == ["model", "tokens", "pictures", "assumed"]
    assert "block 5: 17 tokens" in found.texts


def test_tokens_of_many_patches_are_heat_maps(here: Path) -> None:
    assert "2 images" in succeeded(
        ltmp("report", "soft.onnx", "--samples", "2", "--threads", "1", "--json", "s.json")
    )
    found = page()
    assert found.headings() == ["model", "tokens", "pictures", "assumed"]
    assert [image["alt"].partition(": ")[2] for image in found.of("img")][:3] == [
        "what the model saw", "24 tokens; heat maps of 16.", "9 tokens; heat maps of 9.",
    ]  # fmt: skip
    assert "Tokens 0 to 8, row by row." in found.texts
    assert sum(words.startswith("Token 8 is most of the patch in row ") for words in found.texts)
    facts = document("s.json")
    assert "check" not in facts
    places = [one["place"] for one in facts["pictures"]["courses"][1]["mixtures"]]
    assert places == ["before block 2", "before the head"]


def test_a_failed_check_is_told_and_exits_with_1(here: Path) -> None:
    result = ltmp("report", "ltmp.onnx", DIGITS_LTMP, "--samples", "2", "--threads", "1")
    assert result.exit_code == 1
    assert "check: fail" in result.stdout
    assert "verdict doubt" in {one.get("class") for one in page().of("p")}


BAD: dict[str, tuple[Sequence[str], str]] = {
    "no such file": (["none.onnx"], "none.onnx does not exist"),
    "no model": (["photos/c.jpg"], "c.jpg"),
    "no such checkpoint": (["ltmp.onnx", "none.pth"], "none.pth does not exist"),
    "a model as checkpoint": (["ltmp.onnx", "tome.onnx"], "tome.onnx"),
    "a choice about nothing": (["ltmp.onnx", "--num-heads", "2"], "give CHECKPOINT"),
    "no samples": (["ltmp.onnx", "--samples", "0"], "0 samples asked for"),
    "no threads": (["ltmp.onnx", "--threads", "0"], "threads is 0"),
    "no pictures": (["ltmp.onnx", "--images", "none"], "none does not exist"),
    "onto the model": (["ltmp.onnx", "-o", "ltmp.onnx"], "is the input ltmp.onnx"),
    "onto the checkpoint": (["ltmp.onnx", "soft.pth", "-o", "soft.pth"], "is the input soft.pth"),
    "into nowhere": (["ltmp.onnx", "-o", "no/r.html"], "no does not exist; make it"),
    "a folder": (["ltmp.onnx", "-o", "photos"], "photos is a directory"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line(here: Path, arguments: Sequence[str], message: str) -> None:
    before = left(here)
    refused(ltmp("report", *arguments), message)
    assert left(here) == before


def test_the_page_is_whole_or_what_it_was(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("report.html").write_text("old")
    before = left(here)

    def failing(*_: object) -> bytes:
        raise ExportError("as if the runtime failed")

    monkeypatch.setattr(reporting, "_tokens", failing)
    refused(ltmp("report", "tome.onnx", "--samples", "1"), "as if the runtime", code=3)
    assert left(here) == before
    assert Path("report.html").read_text() == "old"


def test_decisions_that_are_none_leave_the_verdict(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the check tells; a file alone is refused."""

    def none(*_: object) -> None:
        raise CheckFailedError("its decisions are none")

    monkeypatch.setattr(Owners, "of", none)
    refused(ltmp("report", "ltmp.onnx", "--samples", "1"), "its decisions are none", code=1)
    assert not Path("report.html").exists()
    ltmp_export.report("ltmp.onnx", "tuned.pth.tar", samples=1, threads=1)
    found = page()
    assert found.headings() == ["check", "model", "tokens", "margins", "assumed"]
    assert "no pictures: its decisions are none" in found.texts
