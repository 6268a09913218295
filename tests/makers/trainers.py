"""Short runs of training on noise."""

from __future__ import annotations

import numpy as np
import torch

from ltmp_export import families
from ltmp_export.images.labelled import Arrays, Labelled
from ltmp_export.plan.plan import Plan
from ltmp_export.steps.mergence.step import Mergence
from ltmp_export.training.forms import FORMS
from ltmp_export.training.loop import Trainer
from ltmp_export.training.model import MaskedVit
from ltmp_export.training.processes import Process
from ltmp_export.training.settings import Settings, StaticSettings
from ltmp_export.training.static_model import StaticVit
from ltmp_export.training.thresholds import Thresholds
from ltmp_export.training.weights import Weights
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
STATIC = StaticSettings(epochs=2, batch_size=8, lr=1e-3, augment="none", distil=0.3)
MERGING = Plan("multiscale_mergence", ((), (Mergence(20),), (Mergence(9),), ()))


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
) -> Trainer[Thresholds]:
    """A run that has not begun, of a small random ViT."""
    model, geometry = random_vits.build(CASE)
    loaded = families.load(family)
    start = {kind: [{"merge": 0.8, "prune": 0.02}[kind]] * geometry.depth for kind in loaded.start}
    masked = MaskedVit(model, loaded, start, FORMS[settings.form], settings.tau)
    return Trainer(Thresholds(masked, geometry, settings), images or data(), settings, place)


def static_trainer(
    settings: StaticSettings = STATIC, plan: Plan = MERGING, images: Labelled | None = None
) -> Trainer[Weights]:
    """A run that has not begun, of the same ViT under a static plan."""
    model, geometry = random_vits.build(CASE)
    goal = Weights(StaticVit(model, plan), geometry, settings)
    return Trainer(goal, images or data(), settings, ALONE)
