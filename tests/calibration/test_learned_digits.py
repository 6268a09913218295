"""The manual's `ltmp finetune` on the digits, in full: it made the checkpoint of `ltmp demo`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from ltmp_cli.main import app
from typer.testing import CliRunner

from ltmp_export import export, load_checkpoint
from ltmp_export.commands.eval import evaluate
from tests.conftest import DIGITS_LTMP
from tests.documents.manuals import commands, documents
from tests.makers import digits

# Summed in another order or by other threads, some decision falls otherwise in some step.
SAME_THRESHOLDS = 0.01


@pytest.mark.slow
def test_the_command_makes_the_demo_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    digits.write(tmp_path / "digits")
    (line,) = (
        line
        for document in documents()
        for line in commands(document)
        if "-o digits_ltmp.pth.tar" in line
    )
    target = float(line.split("--reduction-target")[1].split()[0])
    result = CliRunner().invoke(app, shlex.split(line)[1:])
    assert result.exit_code == 0, result.output
    made, shipped = load_checkpoint("digits_ltmp.pth.tar"), load_checkpoint(DIGITS_LTMP)
    assert made.arch == shipped.arch == "ltmp_vit_digits_patch4_32"
    for kind, values in shipped.plan.thresholds().items():
        assert made.plan.thresholds()[kind] == pytest.approx(values, abs=SAME_THRESHOLDS)
    export("digits_ltmp.pth.tar", "model.onnx", check=False)
    reduced = evaluate("model.onnx", "digits/val.npz")
    assert reduced.count == 360
    assert abs(reduced.mac_ratio - target) < 0.02
    assert reduced.top1 is not None
    (dense,) = re.findall(r"top-1 [0-9.]+%, dense ([0-9.]+)%", " ".join(result.output.split()))
    assert reduced.top1 > float(dense) / 100 - 0.01
