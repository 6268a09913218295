"""What the README shows is run here; its two install commands are run by `.ci/run`."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import onnx
import pytest
from ltmp_cli.main import app
from PIL import Image
from typer.testing import CliRunner

from ltmp_export import check, load_checkpoint
from tests import make_checkpoint
from tests.conftest import DIGITS_LTMP
from tests.mutations import MUTATIONS

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every command line of the README, without comments and without the two install commands."""
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    plain = [line.split(" #")[0].strip() for line in lines]
    return [line for line in plain if line and not line.startswith("pip install")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user stands: a checkpoint and some photos."""
    shutil.copy(DIGITS_LTMP, tmp_path / "ckpt.pth.tar")
    (tmp_path / "photos").mkdir()
    for grey in (0, 90, 200):
        Image.new("RGB", (40, 36), (grey, 90, 255 - grey)).save(tmp_path / f"photos/{grey}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_commands() -> None:
    names = {shlex.split(line)[1] for line in commands() if line.startswith("ltmp ")}
    assert names == {"export", "bench", "check", "inspect"}


def test_every_command_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in commands():
        program, *arguments = shlex.split(line)
        if program == "python":
            assert arguments[:2] == ["-m", "tests.make_checkpoint"]
            small = {"deit_small_patch16_224": "deit_tiny_patch16_224", "ckpt.pth.tar": "made.pth"}
            monkeypatch.setattr("sys.argv", [small.get(a, a) for a in arguments[1:]])
            make_checkpoint.main()
            continue
        assert program == "ltmp"
        if "--repro" in arguments:
            save_a_repro(Path(arguments[-1]))
        if "--compare" in arguments:  # how fast this machine is today is nobody's guess
            arguments = [{"5%": "100000%"}.get(a, a) for a in arguments]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{line}: {result.output}"
    assert {"model.onnx", "parity.xml", "parity.json", "bench.json", "bench.png", "made.pth"} <= {
        p.name for p in folder.iterdir()
    }


def save_a_repro(folder: Path) -> None:
    """What a check of a wrong file leaves; the file is mended since."""
    onnx.save(MUTATIONS["mlp.fc2 times 1.01"].mutate(load_checkpoint("ckpt.pth.tar"), 0), "w.onnx")
    check("w.onnx", "ckpt.pth.tar", samples=2, save_repro=folder)


def test_python_runs(folder: Path) -> None:
    for source in blocks("python"):
        exec(compile(source, "README.md", "exec"), {})
    assert Path("model.onnx").exists()


def test_the_shown_demo_is_what_the_demo_prints(folder: Path) -> None:
    """Word for word, apart from times, rounding errors and the machine."""
    shown = next(text for text in blocks("text") if "What happened" in text)
    printed = CliRunner().invoke(app, ["demo"]).stdout
    assert without_figures(shown) == without_figures(printed)


def without_figures(text: str) -> list[str]:
    varying = r"\d\.\de-\d+|\d+\.\d+ s\b|\d+ threads|[\d.]+ times|(?<=[\d)])( +[\d.]+[x%]?)+$"
    lines = [re.sub(varying, " _", line) for line in text.strip().splitlines()]
    return " ".join(lines).split()
