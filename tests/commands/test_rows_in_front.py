"""`ltmp finetune` and `ltmp calibrate` of models with other rows than one class token in front."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ltmp_export import export, load_checkpoint
from ltmp_export.reference import Reference
from tests.conftest import load_torch
from tests.makers import random_vits
from tests.makers.commands import ltmp, succeeded
from tests.makers.protected import ROWS, model_of

CASES = {case.name: case for case in ROWS if case.seed in (41, 44, 47)}  # P = 0, 2, 5
STATED = ("--num-heads", "2", "--mean", "0.5", "--std", "0.5", "--img-size", "16,12")
LEARN = (
    *("--data", "data.npz", "--epochs", "1", "-b", "8", "--held-out", "0.25"),
    *("--reduction-target", "0.8", "--start-merge", "0.8", "--start-prune", "0.02"),
    *("--lr-merge", "0.02", "--lr-prune", "1e-3"),
)


@pytest.fixture(params=CASES)
def here(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user stands: base.pth, and data.npz with 24 images that it labelled."""
    case = CASES[request.param]
    model, vit = model_of(case)
    images = random_vits.images(vit, case.seed, 24)
    with torch.inference_mode():
        labels = model(images).argmax(1).numpy()
    torch.save(model.state_dict(), tmp_path / "base.pth")
    np.savez(tmp_path / "data.npz", images=images.numpy(), labels=labels)
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMANDS = {
    "deployed": ("finetune", "base.pth", *LEARN),
    "published": ("finetune", "base.pth", *LEARN, "--paper"),
    "found": ("calibrate", "base.pth", "--images", "data.npz", "--reduction-target", "0.8"),
}


def test_learned_and_found_thresholds(here: Path) -> None:
    """In both masked forms, and without training; each goes straight into a file that is right."""
    learned = []
    dense = load_torch(here / "base.pth")
    for name, command in COMMANDS.items():
        succeeded(ltmp(*command, *STATED, "-o", f"{name}.pth.tar"))
        checkpoint = load_checkpoint(here / f"{name}.pth.tar")
        thresholds = checkpoint.plan.thresholds()
        assert {len(values) for values in thresholds.values()} == {2}
        learned.append(thresholds)
        image = torch.from_numpy(np.load("data.npz")["images"][0])
        trace = Reference(checkpoint.model, checkpoint.plan).run(image)
        assert trace.counts[-1] < checkpoint.vit.tokens
        for key, value in dense.items():
            assert torch.equal(checkpoint.model.state_dict()[key], value)
        report = export(checkpoint, here / f"{name}.onnx")
        assert report.check is not None
        assert report.check.passed()
    assert all(thresholds != {"merge": [0.8] * 2, "prune": [0.02] * 2} for thresholds in learned)
    assert learned[0] != learned[1]
