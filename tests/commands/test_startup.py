"""What a command imports before it can say what it has to say: seconds, on any machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.commands.conftest import CKPT
from tests.makers.commands import ltmp, refused, run_without

HEAVY = {"torch", "timm", "torchvision", "onnxruntime", "onnx", "huggingface_hub", "safetensors"}
MODELS = {"torch", "timm", "torchvision"}  # take seconds, the others a few tenths of one

REFUSED: dict[str, tuple[Sequence[str], set[str]]] = {
    "batch size": (["export", CKPT, "-b", "4"], HEAVY),
    "output": (["export", CKPT, "--outputs", "logit"], HEAVY),
    "budget of no static file": (["export", CKPT, "--keep-tokens", "3"], HEAVY),
    "images for nothing": (["export", CKPT, "--samples", "3"], HEAVY),
    "calibration in float32": (["export", CKPT, "--calibration-samples", "3"], HEAVY),
    "no quantile": (["export", CKPT, "--mode", "static", "--keep-tokens", "auto:p0"], HEAVY),
    "pictures that are not there": (
        ["export", CKPT, "--precision", "int8", "--calibration-images", "no"],
        HEAVY,
    ),
    "no file": (["export", "no.pth"], MODELS),
    "no checkpoint": (["export", __file__], MODELS),
    "no family": (["export", CKPT, "--family", "tom"], MODELS),
    "other thresholds": (["export", CKPT, "--family", "ltp"], MODELS),
    "dynamic of a static family": (
        ["export", CKPT, "--family", "m", "--r", "3", "--mode", "dynamic"],
        MODELS,
    ),
    "no opset": (["export", CKPT, "--opset", "99"], MODELS),
    "no model": (["export", CKPT, "-m", "deit_smal"], MODELS),
    "no model by name": (["export", "timm:deit_smal"], MODELS),
    "heads": (["export", CKPT, "--num-heads", "5"], MODELS),
    "part of a patch": (["export", CKPT, "--img-size", "33"], MODELS),
}


@pytest.mark.parametrize(("arguments", "heavy"), REFUSED.values(), ids=REFUSED.keys())
def test_what_options_and_file_decide_is_refused_without_pytorch(
    folder: Path, arguments: Sequence[str], heavy: set[str]
) -> None:
    refusal = run_without(heavy, [arguments], code=2)
    assert refusal.startswith("error: ")
    assert len(refusal.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["export", "finetune", "bench", "show"])
def test_help_of_a_command_needs_nothing_that_checks_its_options(folder: Path, name: str) -> None:
    shown = run_without({*HEAVY, "numpy", "pydantic"}, [[name, "--help"]])
    assert f"{name} [OPTIONS]" in shown


def test_help_behind_options_and_after_a_double_dash(folder: Path) -> None:
    assert "[OPTIONS]" in ltmp("export", "no.pth", "--help").stdout
    refused(ltmp("export", "--", "--help"), "--help does not exist")


def test_names_that_timm_has_given_up_are_not_refused_before_it_is_asked() -> None:
    """Also in a process that has not imported it."""
    script = (
        "from ltmp_export.statements.timm_listed import require_listed\n"
        "for name in ('deit_small_patch16_224', 'deit_small_patch16_224.fb_in1k',\n"
        "             'vit_base_patch16_224_dino', 'vit_base_patch16', 'hf-hub:timm/none'):\n"
        "    require_listed(name)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_at_the_end_nothing_is_searched_for_what_the_system_takes_back(folder: Path) -> None:
    """That search takes a second where PyTorch was imported."""
    script = (
        "import atexit, gc\n"
        "atexit.register(lambda: print('frozen', gc.get_freeze_count()))\n"  # the last to be called
        "from ltmp_cli.__main__ import main\n"
        "main(['--version'])\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    version, frozen = ran.stdout.splitlines()
    assert version.startswith("ltmp ")
    assert int(frozen.split()[1]) > 1000
