"""Short runs of training on noise."""

from __future__ import annotations

import numpy as np
import torch

from ltmp_export import families
from ltmp_export.images.labelled import Arrays, Labelled
from ltmp_export.training.forms import FORMS
from ltmp_export.training.loop import Trainer
from ltmp_export.training.model import MaskedVit
from ltmp_export.training.processes import Process
from ltmp_export.training.settings import Settings
from ltmp_export.training.thresholds import Thresholds
from tests.makers import random_vits

CASE = random_vits.DEEP
ALONE = Process(0, 1, torch.device("cpu"))
SETTINGS = Settings(
    reduction_target=0.5,
    epochs=2,
    batch_size=8,
    lr={"merge": 0.05, "prune": 0.005},
    augment="none",
)


def data(count: int = 20) -> Labelled:
    """Images of noise with labels at random."""
    _, geometry = random_vits.build(CASE)
    pixels = random_vits.images(geometry, CASE.seed, count).numpy()
    labels = np.random.default_rng(0).integers(0, geometry.classes, count)
    names = tuple(map(str, range(count)))
    return Labelled(Arrays(pixels), np.arange(count), labels, names, "noise")


def trainer(
    settings: Settings = SETTINGS,
    family: str = "ltmp",
    images: Labelled | None = None,
    place: Process = ALONE,
) -> Trainer:
    """A run that has not begun, of a small random ViT."""
    model, geometry = random_vits.build(CASE)
    loaded = families.load(family)
    start = {kind: [{"merge": 0.8, "prune": 0.02}[kind]] * geometry.depth for kind in loaded.start}
    masked = MaskedVit(model, loaded, start, FORMS[settings.form], settings.tau)
    return Trainer(Thresholds(masked, geometry, settings), images or data(), settings, place)
