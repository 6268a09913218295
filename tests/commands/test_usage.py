"""What every command does alike: bad use is one line, help is instant and whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from ltmp_cli.main import app
from typer.testing import CliRunner

from tests.commands.conftest import CKPT
from tests.makers.commands import left, ltmp, refused, run_without


def test_help_shows_defaults(folder: Path) -> None:
    """Square brackets would be taken for markup."""
    assert "default: 1,2,7" in ltmp("check", "--help").stdout


@pytest.mark.parametrize("name", sorted(typer.main.get_group(app).commands))
def test_help_names_every_option_whole_at_80_columns(name: str) -> None:
    """A name that is cut cannot be typed."""
    command = typer.main.get_group(app).commands[name]
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80"}).stdout
    assert max(map(len, shown.splitlines())) <= 80
    words = set(re.findall(r"[^\s│,]+", shown))
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert {*parameter.opts, *parameter.secondary_opts} <= words, parameter.name
        metavar = getattr(parameter, "metavar", None)
        assert metavar is None or metavar in shown, parameter.name


BAD_USE: dict[str, tuple[Sequence[str], int, str]] = {
    "missing file": (["export", "no.pth"], 2, "no.pth does not exist"),
    "folder as checkpoint": (
        ["export", "fixtures"],
        2,
        "is a directory without model.safetensors",
    ),
    "old opset": (["export", CKPT, "--opset", "15"], 2, "opset 15 .* 16 to"),
    "future opset": (["export", CKPT, "--opset", "99"], 2, "opset 99 .* 16 to"),
    "output folder missing": (["export", CKPT, "-o", "no/m.onnx"], 2, "no does not exist; make it"),
    "output is a folder": (["export", CKPT, "-o", "fixtures"], 2, "fixtures is a directory"),
    "output is the input": (["export", CKPT, "-o", CKPT], 2, "is the input fixtures/dig"),
    "report onto the output": (["export", CKPT, "-o", "x", "--json", "x"], 2, "x is also the out"),
    "report onto the input": (["check", "m", CKPT, "--json", CKPT], 2, "is the input fixtures"),
    "repeated batch": (["bench", "m", "-b", "2,2"], 2, "one is there twice"),
    "threads in words": (
        ["bench", "m", "--threads", "two"],
        2,
        "--threads two: expected a whole number of 1 or more, like 2, or auto",
    ),
    "allowed of nothing": (["bench", "m", "--max-regression", "5%"], 2, "is about --compare"),
    "no percentage": (
        ["bench", "m", "--compare", "o", "--max-regression", "0.05"],
        2,
        "--max-regression 0.05: expected a percentage with its sign, like 5%",
    ),
    "compare with nothing": (["bench", "m", "--compare", "o"], 2, "o does not exist; expected a r"),
    "compare with itself": (["bench", "m", "--compare", CKPT, "--json", CKPT], 2, "is the input"),
    "plot of another kind": (["bench", "m", "--plot", "x.jpg"], 2, r"ends in \.svg or \.png"),
    "plot onto the report": (["bench", "m", "--plot", "x", "--json", "x"], 2, "also the output"),
    "base of nothing": (["bench", "m", "--base-checkpoint", "b"], 2, "is about --side-by-side"),
    "report onto the checkpoint": (
        ["bench", "m", "--precisions", CKPT, "--json", CKPT],
        2,
        "is the input fixtures",
    ),
    "single stream of batches": (
        ["bench", "m", "--scenario", "single-stream", "-b", "1,8"],
        2,
        "one image at a time; drop the batch sizes 1,8",
    ),
    "output unwritable": (["export", CKPT, "-o", "/proc/m.onnx"], 2, "cannot write /proc/m.onnx"),
    "report folder missing": (["export", CKPT, "--json", "no/r.json"], 2, "cannot write no/r.json"),
    "unknown family": (["export", CKPT, "--family", "tom"], 2, "no family 'tom'; choose from"),
    "unknown model": (["export", CKPT, "-m", "deit_smal"], 2, "did you mean"),
    "bad mean": (["export", CKPT, "--mean", "a,b"], 2, "--mean a,b: expected numbers"),
    "mean of two": (["export", CKPT, "--mean", "0.5,0.5"], 2, "expected 3 finite numbers"),
    "std of zero": (["export", CKPT, "--std", "0"], 2, "every value must be above 0"),
    "bad size": (["export", CKPT, "--img-size", "1,2,3"], 2, "one number, or height,width"),
    "bench a checkpoint": (["bench", CKPT], 2, "is not an ONNX model"),
    "check a checkpoint": (["check", CKPT, CKPT], 2, "is not an ONNX model"),
    "export a batch of 4": (["export", CKPT, "-b", "4"], 2, "batch size 4: a file is exported for"),
    "a report over the baseline": (
        ["bench", "m.onnx", "--baseline", "base.onnx", "--json", "base.onnx"],
        2,
        "the output base.onnx is the input base.onnx",
    ),
    "bad batches": (["check", "m", CKPT, "-b", "1,x"], 2, "--batch-size 1,x: expected whole"),
    "check nothing": (["check"], 2, "MODEL.onnx and CHECKPOINT missing: ltmp check MODEL.onnx"),
    "check without checkpoint": (["check", "m"], 2, "CHECKPOINT missing: .* or --repro DIR"),
    "repro and images": (["check", "--repro", "r", "--images", "i"], 2, "drop --images"),
    "repro saved again": (["check", "--repro", "r", "--save-repro", "s"], 2, "drop --save-repro"),
    "repro of nothing": (["check", "--repro", "fixtures"], 2, "fixtures has no repro.json"),
    "repro into a full folder": (
        ["check", "m", CKPT, "--save-repro", "fixtures"],
        2,
        "fixtures is not empty; choose",
    ),
    "repro nowhere": (["check", "m", CKPT, "--save-repro", "no/r"], 2, "no does not exist; make"),
    "samples of nothing": (["inspect", CKPT, "--samples", "3"], 2, "--samples is about --images"),
    "repro onto a report": (
        ["check", "m", CKPT, "--save-repro", "r", "--json", "r"],
        2,
        "r is also the output of",
    ),
    "margins of nothing": (["inspect", CKPT, "--images", "none"], 2, "none does not exist"),
    "inspect nothing": (["inspect", "none.onnx"], 2, "none.onnx does not exist"),
    "demo onto a file": (["demo", CKPT], 2, "cannot make the folder"),
}


@pytest.mark.parametrize(("arguments", "code", "message"), BAD_USE.values(), ids=BAD_USE.keys())
def test_bad_use_is_one_line_and_writes_nothing(
    folder: Path, arguments: Sequence[str], code: int, message: str
) -> None:
    before = left(folder)
    refused(ltmp(*arguments), message, code)
    assert left(folder) == before


def test_usage_errors_exit_2_and_suggest(folder: Path) -> None:
    result = ltmp("export", CKPT, "--opsett", "17")
    assert result.exit_code == 2
    assert "--opset" in result.stderr
    assert ltmp("frobnicate").exit_code == 2


def test_help_is_instant_and_loads_nothing_heavy(folder: Path) -> None:
    shown = run_without({"torch", "timm", "onnx", "onnxruntime", "numpy"}, [["--help"]])
    for command in ("export", "check", "bench", "inspect", "demo"):
        assert command in shown


def test_exported_models_need_no_pytorch(folder: Path) -> None:
    """What is done with a model file alone does not wait for PyTorch and timm to be imported."""
    assert ltmp("export", CKPT, "--no-check").exit_code == 0
    once = ["--samples", "1", "--iterations", "1", "--warmup", "0"]
    shown = run_without(
        {"torch", "timm"}, [["inspect", "model.onnx"], ["bench", "model.onnx", *once]]
    )
    assert "opset" in shown
    assert "speed-up" in shown


@pytest.mark.parametrize("command", ["export", "check", "bench", "inspect", "models", "demo"])
def test_every_command_has_help(command: str) -> None:
    result = ltmp(command, "--help")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 5
