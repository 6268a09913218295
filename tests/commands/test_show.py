"""`ltmp show`: pictures of tokens from a file alone, all of them or none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import ltmp_export
from ltmp_export import ExportError
from ltmp_export.drawing import sheets
from ltmp_export.runtimes.session import Session
from tests.commands.test_startup import MODELS
from tests.conftest import cluster_layers, load_torch
from tests.makers.commands import left, ltmp, refused, run_without, succeeded


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, digits_base: Path, exported: Path) -> Path:
    """Files of the digits: ltmp.onnx, single.onnx, tome.onnx; soft.onnx."""
    place = tmp_path_factory.mktemp("files")
    shutil.copy(exported, place / "ltmp.onnx")
    weights = load_torch(digits_base) | cluster_layers(128, 24, 9)
    torch.save(weights, place / "soft.pth")
    soft = ltmp_export.Choices(
        family="patchmerger", merge_at=(2, 6), merge_scale="sqrt", num_heads=2, mean=(0.5,),
        std=(0.5,),
    )  # fmt: skip
    ltmp_export.export(place / "soft.pth", place / "soft.onnx", choices=soft, check=False)
    stated = ltmp_export.Choices(family="m", rate="8", num_heads=2)
    ltmp_export.export(digits_base, place / "tome.onnx", choices=stated, check=False)
    ltmp_export.export(
        digits_base, place / "single.onnx", choices=stated, check=False, batch_size=1
    )
    return place


@pytest.fixture
def here(tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user stands, with photos/ of two pictures in a folder."""
    for file in files.iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "photos/a").mkdir(parents=True)
    ramp = np.arange(0, 240, 2, dtype=np.uint8)
    for number, name in enumerate(("photos/a/<b>&.png", "photos/c.jpg")):
        pixels = np.stack([np.tile(ramp, (90, 1)).T + number, *[np.tile(ramp, (90, 1)).T] * 2], 2)
        Image.fromarray(pixels).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def document(path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(path).read_text())
    schema = resources.files("ltmp_export") / "schemas" / "show.schema.json"
    jsonschema.validate(found, json.loads(schema.read_text()))
    return found


def test_a_picture_for_each_image_and_a_grid(here: Path) -> None:
    told = succeeded(
        ltmp("show", "ltmp.onnx", "--images", "photos", "-o", "new", "--blocks", "5,0", "--grid",
             "--json", "s.json", "--size", "160")
    )  # fmt: skip
    assert left(here / "new") == ["a_b.png", "c.png", "grid.png"]
    assert "block 0" in told
    assert "new: 3 pictures, all images on grid.png" in told
    found = document("s.json")
    assert found["blocks"] == [0, 5]
    assert [one["image"] for one in found["pictures"]] == ["a/<b>&.png", "c.jpg"]
    assert "cropped to 32x32 pixels" in found["models"][0]["prepared"]
    for one in found["pictures"]:
        (course,) = one["courses"]
        assert course["alt"].startswith(f"{one['image']} through ltmp.onnx, 64 patches. Behind")
        for block in course["blocks"]:
            assert len(block["token_map"]) == 64
            assert block["pruned_patches"] == block["token_map"].count(-1)
        with Image.open(here / "new" / one["files"][0]) as picture:
            assert picture.width == 3 * 160 + 4 * sheets.GAP


def test_counts_are_those_that_the_file_gives(here: Path) -> None:
    drawn = ltmp_export.show("ltmp.onnx", "p", samples=3, blocks="all", apart=True, size=96)
    model = onnx.load("ltmp.onnx")
    counts = [f"block_{block:02d}/count" for block in range(6)]
    for name in counts:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, 7, None))
    session = Session(model, threads=1)
    digits = ltmp_export.images.inputs.embedded_digits()
    assert left(here / "p") == sorted(name for one in drawn.pictures for name in one.files)
    for one in drawn.pictures:
        pixels = digits.pixels[digits.names.index(one.image)]
        given = [int(value[0]) for value in session.run(pixels[None])[-6:]]
        assert [block["tokens"] for block in one.courses[0]["blocks"]] == given


def test_two_files_side_by_side(here: Path) -> None:
    told = succeeded(
        ltmp("show", "ltmp.onnx", "--side-by-side", "single.onnx", "--samples", "1", "--size",
             "96", "--json", "s.json", "--threads", "1")
    )  # fmt: skip
    (one,) = document("s.json")["pictures"]
    assert len(one["courses"]) == 2
    assert [model["tokens"] for model in one["courses"][1]["blocks"]][-1] == 65 - 6 * 8
    assert told.count("digit 0") == 2
    assert left(here / "pictures") == ["digit_0_a_2.png"]


def test_heat_of_a_method_that_mixes(here: Path) -> None:
    refused(ltmp("show", "soft.onnx"), "family patchmerger makes every token .* --heat shows")
    refused(ltmp("show", "soft.onnx", "--heat", "--grid"), "--heat draws the tokens of one file")
    refused(ltmp("show", "soft.onnx", "--heat", "--blocks", "1"), "tells of blocks 2, 6")
    refused(ltmp("show", "ltmp.onnx", "--heat"), "family ltmp mixes no tokens.*drop --heat")
    succeeded(
        ltmp("show", "soft.onnx", "--heat", "--samples", "1", "--blocks", "all", "--size", "96",
             "--json", "s.json")
    )  # fmt: skip
    assert left(here / "pictures") == [f"digit_0_a_2_block_0{n}_heat.png" for n in (2, 6)]
    (course,) = document("s.json")["pictures"][0]["courses"]
    assert [one["tokens"] for one in course["mixtures"]] == [24, 9]
    assert {len(shares) for one in course["mixtures"] for shares in one["shares"]} == {64}


def test_arrays_need_no_pytorch(here: Path) -> None:
    np.savez("i.npz", images=np.full((2, 32, 32, 3), 90, np.uint8))
    arguments = ["show", "tome.onnx", "--images", "i.npz", "-o", "p", "--size", "96"]
    assert "p: 2 pictures" in run_without(MODELS, [arguments])


BAD: dict[str, tuple[Sequence[str], str]] = {
    "no such block": (["--blocks", "0,6"], "no block 6; ltmp.onnx tells of blocks 0 to 5"),
    "no number": (["--blocks", "first"], "--blocks first: expected whole numbers of 0 or more"),
    "too small": (["--size", "4"], "pictures of 4 pixels; expected 96 to 2048"),
    "no folder of pictures": (["--images", "none"], "none does not exist"),
    "a folder without pictures": (["--images", "empty"], "empty holds no pictures"),
    "no samples": (["--samples", "0"], "0 samples asked for"),
    "into a file": (["-o", "ltmp.onnx"], "ltmp.onnx"),
    "among the images": (["--images", "photos", "-o", "photos/a"], "among the images in photos"),
    "into nowhere": (["-o", "no/where"], "no does not exist; make it"),
    "another that is no model": (["--side-by-side", "photos/c.jpg"], "photos/c.jpg"),
    "report onto the model": (["--json", "ltmp.onnx"], "is the input ltmp.onnx"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line(here: Path, arguments: Sequence[str], message: str) -> None:
    (here / "empty").mkdir()
    before = left(here)
    refused(ltmp("show", "ltmp.onnx", *arguments), message)
    assert left(here) == before
    assert not (here / "pictures").exists()


def test_what_is_no_file_of_this_tool(here: Path) -> None:
    refused(ltmp("show", "photos/c.jpg"), "is no ONNX|not a readable ONNX|c.jpg")
    refused(ltmp("show", "none.onnx"), "none.onnx does not exist")


def test_all_pictures_or_none(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stood there stays as it was; other files stay anyway."""
    (here / "pictures").mkdir()
    (here / "pictures/mine.txt").write_text("mine")
    (here / "pictures/c.png").write_bytes(b"old")
    whole, calls = sheets.png, []

    def failing(picture: Image.Image) -> bytes:
        calls.append(picture)
        if len(calls) == 2:
            raise ExportError("as if the runtime failed")
        return whole(picture)

    monkeypatch.setattr(sheets, "png", failing)
    arguments = ("show", "tome.onnx", "--images", "photos", "--size", "96")
    refused(ltmp(*arguments), "as if the runtime failed", code=3)
    assert left(here / "pictures") == ["c.png", "mine.txt"]
    assert (here / "pictures/c.png").read_bytes() == b"old"
    assert not [name for name in left(here) if name.endswith(".tmp") or "/." in name]
    monkeypatch.undo()
    monkeypatch.chdir(here)
    succeeded(ltmp(*arguments))
    assert left(here / "pictures") == ["a_b.png", "c.png", "mine.txt"]
    assert (here / "pictures/c.png").read_bytes() != b"old"
