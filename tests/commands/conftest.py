"""Where a user of the commands stands."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest
import torch

from ltmp_export import export
from tests.conftest import DIGITS_LTMP, FIXTURES, load_torch
from tests.makers import finetuned
from tests.makers.calibrated import EMBEDDED

CKPT = "fixtures/digits_ltmp.pth.tar"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with the authors' checkpoint as fixtures/digits_ltmp.pth.tar."""
    (tmp_path / "fixtures").mkdir()
    shutil.copy(DIGITS_LTMP, tmp_path / "fixtures")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user stands who fine-tunes: base.pth, data.npz with 40 labelled images."""
    finetuned.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint whose outputs golden.npz has: the authors' thresholds and the weights."""
    top = load_torch(DIGITS_LTMP)
    thresholds = load_torch(FIXTURES / "digits_ltmp_thresholds.pth.tar")["state_dict"]
    path = tmp_path_factory.mktemp("tuned") / "tuned.pth.tar"
    torch.save(top | {"state_dict": top["state_dict"] | thresholds}, path)
    return path


@pytest.fixture(scope="session")
def exported(tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file exported from it."""
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export(tuned, path, check=False)
    return path


@pytest.fixture
def digits_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_base: Path, tuned: Path, exported: Path
) -> Path:
    """Where a user stands: base.pth, tuned.pth.tar, model.onnx, digits.npz."""
    stated = argparse.Namespace(num_heads=2)
    torch.save({"state_dict": load_torch(digits_base), "args": stated}, tmp_path / "base.pth")
    shutil.copy(tuned, tmp_path / "tuned.pth.tar")
    shutil.copy(exported, tmp_path / "model.onnx")
    shutil.copy(EMBEDDED, tmp_path / "digits.npz")
    monkeypatch.chdir(tmp_path)
    return tmp_path
