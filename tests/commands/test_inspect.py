"""`ltmp inspect` as a user types it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch

from ltmp_export.images import inputs
from tests.commands.conftest import CKPT
from tests.conftest import FIXTURES, load_torch
from tests.makers.commands import ltmp, refused


def test_inspect_margins(folder: Path) -> None:
    np.savez("images.npz", images=inputs.embedded_digits().pixels)
    result = ltmp("inspect", CKPT, "--images", "images.npz", "--samples", "5")
    assert result.exit_code == 0, result.stderr
    assert "|score - threshold| on 5 images (images.npz)" in result.stdout
    assert re.search(r"^1 +prune +\d+ +\d\.\de-0\d .* \d+%$", result.stdout, re.MULTILINE)
    assert re.search(r"^any( +\d+%){4}$", result.stdout, re.MULTILINE)
    assert "float32 (scores off by 3e-06 of themselves): 0%" in result.stdout
    document = json.loads(
        ltmp("inspect", CKPT, "--images", "images.npz", "--samples", "5", "--json").stdout
    )
    assert document["margins"]["count"] == 5
    assert len(document["margins"]["steps"]) == 18
    ltmp("export", CKPT, "--no-check")
    refused(ltmp("inspect", "model.onnx", "--images", "images.npz"), "measured on its checkpoint")


def test_inspect(folder: Path) -> None:
    found = ltmp("inspect", CKPT)
    assert found.exit_code == 0, found.stderr
    assert "6 blocks, width 128, 2 heads" in found.stdout
    assert re.search(r"^1 +0\.907877 +0\.006371$", found.stdout, re.MULTILINE)
    ltmp("export", CKPT, "--no-check")
    document = json.loads(ltmp("inspect", "model.onnx", "--json").stdout)
    assert document["opset"] == 17
    assert document["inputs"] == [
        {"name": "images", "type": "float", "shape": ["batch", 3, 32, 32]}
    ]
    assert document["operators"]["Gemm"] == 25
    assert "opset" in ltmp("inspect", "model.onnx").stdout


def test_inspect_says_what_is_missing(folder: Path) -> None:
    found = ltmp("inspect", FIXTURES / "digits_ltm_thresholds.pth.tar")
    assert found.exit_code == 0
    assert "merge in 6 blocks" in found.stdout
    assert "give the dense model's weights with --base-checkpoint" in found.stdout
    state = load_torch(Path(CKPT))["state_dict"]
    torch.save(state, "bare.pth")
    document = json.loads(ltmp("inspect", "bare.pth", "--json").stdout)
    assert document["kind"] == "incomplete checkpoint"
    assert "--family ltmp|ltpm" in document["missing"]
    assert document["tensors"] == 80
