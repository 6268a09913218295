"""Dense weights by their timm name: from a cache as the Hub's library lays it out, or refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from ltmp_export import load_checkpoint
from ltmp_export.checkpoint import hub
from ltmp_export.errors import InputError
from tests.makers.commands import ltmp, refused, succeeded
from tests.makers.make_checkpoint import pictures, random_vit

NAME = "deit_tiny_patch16_224"
BASE = ("--base-checkpoint", f"timm:{NAME}")
OFFLINE = {"HF_HUB_OFFLINE": "1"}


def cached_model(home: Path) -> dict[str, torch.Tensor]:
    """The weights of a random DeiT in a cache of the Hub's library."""
    model = random_vit(NAME, 0)
    folder = home / "hub" / "models--timm--deit_tiny_patch16_224.fb_in1k"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    save_file(model.state_dict(), snapshot / "model.safetensors")
    return dict(model.state_dict())


def thresholds(path: Path) -> None:
    state = {f"blocks.{i}.merge_masker.threshold": torch.tensor([0.95]) for i in range(12)}
    torch.save({"state_dict": state, "arch": f"ltm_{NAME}"}, path)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with a cache for this process; nothing is fetched."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_base_by_name_from_the_cache(home: Path) -> None:
    """In a process of its own: the library reads its environment when it is imported."""
    cached_model(home)
    thresholds(home / "t.pth")
    ran = subprocess.run(
        [sys.executable, "-m", "ltmp_cli", "export", "t.pth", "--no-check", *BASE],
        cwd=home,
        env=os.environ | OFFLINE | {"HF_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "model.onnx: ltm deit_tiny_patch16_224" in ran.stdout
    assert "base: bare state_dict" in succeeded(ltmp("inspect", "t.pth", *BASE))


def test_thresholds_for_a_model_by_name(home: Path) -> None:
    """The tag of the pretrained weights stays in the name, and tells the normalisation."""
    cached_model(home)
    images = pictures(8, (3, 224, 224), 0).numpy()
    np.savez(home / "i.npz", images=images, labels=np.arange(8))
    source = f"timm:{NAME}.fb_in1k"
    made = ltmp("calibrate", source, "--images", "i.npz", "--reduction-target", "0.7")
    assert made.exit_code == 0, made.stderr
    checkpoint = load_checkpoint(home / "calibrated.pth.tar")
    assert checkpoint.arch == f"ltmp_{NAME}.fb_in1k"
    assert (checkpoint.vit.heads, checkpoint.notes) == (3, ())
    assert checkpoint.preprocessing.mean == (0.485, 0.456, 0.406)
    rates = ("--lr-merge", "0", "--epochs", "1", "-b", "2", "--held-out", "0.5")
    target = ("--reduction-target", "0.7", "-o", "f.pth.tar")
    made = ltmp("finetune", source, "--data", "i.npz", *target, *rates)
    assert made.exit_code == 0, made.stderr
    assert load_checkpoint(home / "f.pth.tar").arch == checkpoint.arch
    made = ltmp("eval", source, "--data", "i.npz", "--samples", "2")
    assert f"{source}: dense, top-1" in made.stdout


def test_tome_on_a_model_by_name(home: Path) -> None:
    """No checkpoint at all; check and inspect take the name, too."""
    cached_model(home)
    source = f"timm:{NAME}"
    made = ltmp("export", source, "--family", "m", "--r", "8", "--no-check")
    assert made.exit_code == 0, made.stderr
    assert "model.onnx: m deit_tiny_patch16_224" in made.stdout
    found = ltmp("check", "model.onnx", source, "--samples", "1", "-b", "1")
    assert found.exit_code == 0, found.stderr
    assert "equal: every decision" in found.stdout
    told = ltmp("inspect", source, "--family", "p", "--r", "8").stdout
    assert "family p: as --family says" in told
    refused(ltmp("export", source), "--family m --r 8 needs none")


def test_what_is_not_in_the_cache_is_one_clear_line(home: Path) -> None:
    thresholds(home / "t.pth")
    missing = f"timm:{NAME}: timm/deit_tiny_patch16_224.fb_in1k is not in the"
    refused(ltmp("export", "t.pth", *BASE), f"^error: {missing}.*give a file with its weights$")


def test_names_that_timm_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub.names_a_model("timm:x")
    assert not hub.names_a_model(Path("timm.pth"))
    with pytest.raises(
        InputError, match="timm has no model 'deit_tinny_patch16_224'; did you mean"
    ):
        hub.fetch("timm:deit_tinny_patch16_224")
    with pytest.raises(InputError, match="224.bogus'; of deit_tiny_patch16_224 it has"):
        hub.fetch(f"timm:{NAME}.bogus")
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: None)
    with pytest.raises(InputError, match="no pretrained weights of 'deit_tiny_patch16_224' on the"):
        hub.fetch(f"timm:{NAME}")
