"""Folders of labelled pictures as users have them, from the command line.

A ViT that tells twelve colours apart, trained as torchvision's ImageFolder numbers the folders 0 to
11: 0, 1, 10, 11, 2, … timm numbers them otherwise.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ltmp_cli.main import app
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from ltmp_export import export, inspect
from ltmp_export.precision.formats import Precision
from ltmp_export.statements.choices import Choices
from tests.conftest import DIGITS_LTMP
from tests.makers.make_checkpoint import random_vit

CLASSES = 12
STATED = ("--num-heads", "1", "--mean", "0.5", "--std", "0.5")
OPEN = r"class 2 is folder '2' in natural order \(timm's\), '10' in string order .*--class-order"
CHANCE = r"is 16\.7% on 36 images of 12 classes, near chance \(8\.3%\): are the labels in the model"


def draw(folder: Path, each: int) -> tuple[Tensor, Tensor]:
    """Solid colours with a little noise, and what torchvision makes of them."""
    rng, colours = np.random.default_rng(each), np.random.default_rng(0)
    order, images, labels = sorted(map(str, range(CLASSES))), [], []
    for name in map(str, range(CLASSES)):
        (folder / name).mkdir(parents=True)
        colour = colours.integers(20, 235, 3)
        for index in range(each):
            pixels = (colour + rng.integers(-9, 10, (16, 16, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
            images.append(torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1)
            labels.append(order.index(name))
    return torch.stack(images), torch.tensor(labels)


def fit(model: VisionTransformer, images: Tensor, labels: Tensor) -> None:
    """A head by least squares."""
    with torch.no_grad():
        features = model.forward_head(model.forward_features(images), pre_logits=True)
        rows = torch.cat([features, torch.ones(len(features), 1)], 1)
        wanted = nn.functional.one_hot(labels, CLASSES).float()
        normal = rows.T @ rows + 0.01 * torch.eye(rows.shape[1])
        solved = torch.linalg.solve(normal, rows.T @ wanted)
        model.head.weight.copy_(10 * solved[:-1].T)
        model.head.bias.copy_(10 * solved[-1])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/train, data/val, model.pth, m.onnx, map.txt."""
    folder = tmp_path_factory.mktemp("colours")
    images, labels = draw(folder / "data" / "train", 4)
    draw(folder / "data" / "val", 3)
    model = random_vit("vit", 0, img_size=16, patch_size=8, embed_dim=64, depth=2, num_heads=1,
                       num_classes=CLASSES)  # fmt: skip
    fit(model, images, labels)
    torch.save(model.state_dict(), folder / "model.pth")
    stated = Choices(family="m", rate="1", num_heads=1, mean=(0.5,), std=(0.5,))
    export(folder / "model.pth", folder / "m.onnx", choices=stated, check=False)
    (folder / "map.txt").write_text("\n".join(sorted(map(str, range(CLASSES)))))
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user stands."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def ltmp(line: str) -> Result:
    return CliRunner().invoke(app, line.split())


def warned(result: Result, *beside: str) -> list[str]:
    """What it warns of, beside what is assumed of a file that says nothing."""
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    return [line for line in lines if not line.startswith(("warning: assumed", *beside))]


def refused(result: Result, message: str) -> None:
    assert result.exit_code == 2, result.output
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert re.search(message, line), line


def test_eval_asks_for_the_order_or_is_told(here: Path) -> None:
    refused(ltmp("eval m.onnx --data data"), OPEN)
    for told in ("--class-order string", "--class-map map.txt"):
        right = ltmp(f"eval m.onnx --data data {told}")
        assert "top-1 100.00%" in right.stdout
        assert "on 36 images" in right.stdout
        assert not warned(right)
    for model in ("m.onnx", f"model.pth {' '.join(STATED)}"):
        wrong = ltmp(f"eval {model} --data data --class-order natural")
        (line,) = warned(wrong)
        assert re.match(f"warning: top-1 {CHANCE}", line), line


def test_finetune_asks_for_the_order_or_is_told(here: Path) -> None:
    line = f"finetune model.pth --data data --reduction-target 0.9 -b 24 {' '.join(STATED)}"
    refused(ltmp(line), OPEN)
    assert not (here / "finetuned.pth.tar").exists()
    late = "warning: 0.", "warning: 1."  # the target is missed in two steps
    assert not warned(ltmp(f"{line} --class-order string"), *late)
    (doubt,) = warned(ltmp(f"{line} --class-order natural"), *late)
    assert re.match(f"warning: top-1 of the dense model {CHANCE}", doubt), doubt


def test_calibrate_needs_no_labels_and_says_what_it_leaves_out(here: Path) -> None:
    line = f"calibrate model.pth --images data --reduction-target 0.9 {' '.join(STATED)}"
    alone = ltmp(line)
    (remark,) = warned(alone)
    assert re.match(f"warning: no top-1: data/val: {OPEN}", remark), remark
    assert "top-1" not in alone.stdout
    (doubt,) = warned(ltmp(f"{line} --class-order natural"))
    assert doubt.startswith("warning: top-1 of the dense model is ")


def test_linked_class_folders_are_there(here: Path) -> None:
    Path("view").mkdir()
    for number in range(CLASSES):
        Path(f"view/{number}").symlink_to(f"../data/val/{number}")
    shutil.copytree("data/val", "mixed")
    shutil.rmtree("mixed/3")
    Path("mixed/3").symlink_to("../data/val/3")
    for data, told in (("view", "--class-order string"), ("mixed", "--class-map map.txt")):
        result = ltmp(f"eval m.onnx --data {data} {told}")
        assert "top-1 100.00%, top-5 100.00% on 36 images" in result.stdout
        assert not warned(result)


def test_a_class_that_is_not_there_is_said(here: Path) -> None:
    shutil.rmtree("data/val/3")
    result = ltmp("eval m.onnx --data data --class-map map.txt")
    assert "on 33 images" in result.stdout
    missing = "warning: data/val has no pictures of 1 of the 12 classes (3)"
    assert warned(result) == [missing]
    refused(
        ltmp("eval m.onnx --data data --class-order string"),
        "has 11 class folders .*the model 12 classes; state which is which with --class-map FILE",
    )
    line = f"finetune model.pth --data data --reduction-target 0.9 -b 24 {' '.join(STATED)}"
    assert warned(ltmp(f"{line} --class-order string"), "warning: 0.", "warning: 1.") == [missing]


def leave_out(folder: Path) -> str:
    """Something that is left out, and the line on it."""
    (folder / "._0.png").write_bytes(b"of macOS")
    (folder / "notes.txt").write_text("no picture")
    told = "1 hidden file (._0.png), 1 file that is no picture (notes.txt)"
    return f"warning: {folder}: left out {told}"


COMMANDS: dict[str, str] = {
    "check": "check m.onnx model.pth --images data/val --samples 2 --batch-size 1",
    "bench": "bench m.onnx --images data/val --samples 2 --baseline none --iterations 1 --warmup 0",
    "eval": "eval m.onnx --data data/val --class-order string",
    "calibrate": "calibrate model.pth --images data/val --reduction-target 0.9 "
    "--class-order string " + " ".join(STATED),
    "int8": "export model.pth --family m --r 1 --precision int8 --calibration-images data/val "
    "--no-check " + " ".join(STATED),
}


@pytest.mark.parametrize("line", COMMANDS.values(), ids=COMMANDS.keys())
def test_what_is_left_out_is_said_once(here: Path, line: str) -> None:
    told = leave_out(Path("data/val"))
    assert warned(ltmp(line)) == [told]


def test_pictures_used_twice_are_remarked_once(digit_folder: Path, tmp_path: Path) -> None:
    """For a budget and for int8 scales; and those that margins are measured on."""
    folder = digit_folder
    told = leave_out(folder).removeprefix("warning: ")
    report = export(
        DIGITS_LTMP, tmp_path / "b.onnx", mode="static", keep_tokens="auto:max", images=folder,
        precision=Precision("int8"), calibration_images=folder, check=False,
    )  # fmt: skip
    assert report.warnings == (told,)
    assert inspect(DIGITS_LTMP, images=folder)["warnings"] == [told]


@pytest.fixture
def digit_folder(tmp_path: Path) -> Path:
    """A few pictures of the digits' size."""
    rng = np.random.default_rng(0)
    (tmp_path / "digits").mkdir()
    for index in range(3):
        pixels = rng.integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "digits" / f"{index}.png")
    return tmp_path / "digits"
