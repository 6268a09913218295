"""Where a user of the commands stands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import DIGITS_LTMP
from tests.makers import finetuned

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
