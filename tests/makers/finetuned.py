"""A small random ViT to fine-tune: the settings, and the command with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltmp_export.commands.finetune import FinetuneReport, finetune
from ltmp_export.statements.choices import Choices
from ltmp_export.training.settings import Settings
from tests.makers import random_vits

CASE = random_vits.DEEP
SETTINGS = Settings(
    reduction_target=0.8,
    epochs=3,
    batch_size=8,
    lr={"merge": 0.02, "prune": 1e-3},
    start={"merge": 0.8, "prune": 0.02},
    held_out=0.25,
)
FLAGS = (
    *("--reduction-target", "0.8", "--epochs", "3", "-b", "8"),
    *("--lr-merge", "0.02", "--lr-prune", "1e-3", "--start-merge", "0.8", "--start-prune", "0.02"),
    *("--held-out", "0.25", "--num-heads", "2", "--mean", "0.5", "--std", "0.5"),
)
CHOICES = Choices(num_heads=2, mean=(0.5,), std=(0.5,))


def write(folder: Path) -> None:
    """Write base.pth, the dense weights, and data.npz with 40 images that it labelled."""
    model, geometry = random_vits.build(CASE)
    torch.save(model.state_dict(), folder / "base.pth")
    images = random_vits.images(geometry, CASE.seed, 40)
    with torch.inference_mode():
        labels = model(images).argmax(1).numpy()
    np.savez(folder / "data.npz", images=images.numpy(), labels=labels)


def learn(output: str = "out.pth.tar", **options: Any) -> FinetuneReport:
    """Fine-tune the base.pth of the current folder on its data.npz."""
    settings = options.pop("settings", SETTINGS)
    options = {"choices": CHOICES} | options
    report = finetune("base.pth", "data.npz", output, settings, **options)
    assert report is not None
    return report
