"""What the README shows is run here; its two install commands are run by `.ci/run`."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from ltmp_cli.main import app
from PIL import Image
from typer.testing import CliRunner

from ltmp_export import check, load_checkpoint
from tests.conftest import DIGITS_LTMP, cluster_layers
from tests.makers import digits, make_checkpoint
from tests.makers.mutations import MUTATIONS

README = Path(__file__).parent.parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every command line of the README, without comments and without the two install commands."""
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    plain = [line.split(" #")[0].strip() for line in lines]
    return [line for line in plain if line and not line.startswith("pip install")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user stands: a checkpoint, some photos, and images in folders of ten classes."""
    shutil.copy(DIGITS_LTMP, tmp_path / "ckpt.pth.tar")
    (tmp_path / "photos").mkdir()
    for grey in (0, 90, 200):
        Image.new("RGB", (40, 36), (grey, 90, 255 - grey)).save(tmp_path / f"photos/{grey}.png")
    images, labels = digits.arrays()
    for number, (image, label) in enumerate(zip(images[:200], labels[:200], strict=True)):
        place = tmp_path / "imagenet" / ("train" if number < 140 else "val") / f"class {label}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = (127.5 * (image[0] + 1)).round().astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_commands() -> None:
    names = {shlex.split(line)[1] for line in commands() if line.startswith("ltmp ")}
    assert names == {"export", "bench", "check", "inspect", "calibrate", "finetune", "eval"}


# The same commands on less: what stands for a model of timm, and runs that take a while.
SMALLER = {
    "timm:deit_small_patch16_224": "base.pth --num-heads 2 --mean 0.5 --std 0.5",
    "--reduction-target 0.45 --epochs 3": "--reduction-target 0.45 --epochs 1",
    "0.9,0.8,0.7,0.6,0.5,0.4,0.3": "0.9,0.5",
    "5%": "100000%",  # how fast this machine is today is nobody's guess
    "deit_small_patch16_224 --mac-share 0.52 -o ckpt.pth.tar": (
        "deit_tiny_patch16_224 --mac-share 0.52 -o made.pth"
    ),
}


def test_every_command_runs(
    folder: Path, digits_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(digits_base, folder / "base.pth")
    torch.save(torch.load(digits_base) | cluster_layers(128, 24, 9), "deit_patchmerger.pth")
    for line in commands():
        given = line
        for long, short in SMALLER.items():
            given = given.replace(long, short)
        program, *arguments = shlex.split(given)
        if program in ("python", "torchrun"):
            run_module(program, arguments, monkeypatch)
            continue
        assert program == "ltmp"
        if "--repro" in arguments:
            save_a_repro(Path(arguments[-1]))
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{line}: {result.output}"
    made = {path.name for path in folder.iterdir()}
    assert {"model.onnx", "parity.xml", "parity.json", "bench.json", "bench.png"} <= made
    assert {"made.pth", "sweep.png", "calibrated.pth.tar", "finetuned.pth.tar"} <= made
    assert {"digits_ltmp.pth.tar", "digits_ltmp.pth.tar.csv", "reduced.pth.tar"} <= made


def run_module(program: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs that are not `ltmp`."""
    if program == "torchrun":
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone", *arguments]
        done = subprocess.run(run, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return
    modules = {
        "tests.makers.make_checkpoint": make_checkpoint.main,
        "tests.makers.digits": digits.main,
    }
    dash, module, *rest = arguments
    assert dash == "-m"
    monkeypatch.setattr("sys.argv", [module, *rest])
    modules[module]()
    if module == "tests.makers.digits":
        write_few_digits()


def write_few_digits() -> None:
    """What `python -m tests.makers.digits digits` writes, with fewer images to train on."""
    digits.write(Path("digits"))
    with np.load("digits/train.npz") as arrays:
        few = {name: arrays[name][:240] for name in arrays}
    np.savez("digits/train.npz", **few)


def save_a_repro(folder: Path) -> None:
    """What a check of a wrong file leaves; the file is mended since."""
    onnx.save(MUTATIONS["mlp.fc2 times 1.01"].mutate(load_checkpoint("ckpt.pth.tar"), 0), "w.onnx")
    check("w.onnx", "ckpt.pth.tar", samples=2, save_repro=folder)


def test_python_runs(folder: Path) -> None:
    write_few_digits()
    for source in blocks("python"):
        exec(compile(source, "README.md", "exec"), {})
    assert Path("model.onnx").exists()


def test_the_shown_demo_is_what_the_demo_prints(folder: Path) -> None:
    """Word for word, apart from times, rounding errors and the machine."""
    shown = next(text for text in blocks("text") if "What happened" in text)
    printed = CliRunner().invoke(app, ["demo"]).stdout
    assert without_figures(shown) == without_figures(printed)


def without_figures(text: str) -> list[str]:
    varying = r"\d\.\de[-+]\d+|\d+\.\d+ s\b|\d+ threads|[\d.]+ times|(?<=[\d)])( +[\d.]+[x%]?)+$"
    lines = [re.sub(varying, " _", line) for line in text.strip().splitlines()]
    return " ".join(lines).split()
