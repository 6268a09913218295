"""How to train."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ltmp_export.errors import InputError
from ltmp_export.images.pictures import CROP

FORMS = ("aligned", "published")
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Settings:
    """How to train; the defaults are the paper's (METHOD §1), made for ImageNet.

    Attributes:
        reduction_target: Share of the blocks' multiply-accumulates to be left, in (0, 1].
        form: "aligned" for a mask that decides as the deployed model, "published" for the paper's.
        epochs: Times that every image is seen.
        batch_size: Images of a step, over all processes and parts.
        accumulate: Parts in which each process computes its share of a step.
        lr: Learning rate per kind of threshold.
        start: Start value per kind of threshold; the family's, or the checkpoint's, by default.
        tau: Temperature of the gradient of a decision.
        budget_weight: Factor of (r - target)² in the loss.
        label_smoothing: Of the cross-entropy.
        train_all: Learning rate of everything else (AdamW); None leaves it frozen.
        augment: See `images.pictures.training_transform`.
        held_out: Share of the images to measure on, where the data do not tell.
        seed: Of the order of the images, their augmentation and the split.
        precision: Of the products, where the device has it; decisions are taken in float32.
    """

    reduction_target: float
    form: str = "aligned"
    epochs: int = 1
    batch_size: int = 128
    accumulate: int = 1
    lr: Mapping[str, float] = field(default_factory=lambda: {"merge": 5e-3, "prune": 5e-6})
    start: Mapping[str, float] = field(default_factory=dict)
    tau: float = 0.1
    budget_weight: float = 10.0
    label_smoothing: float = 0.1
    train_all: float | None = None
    augment: str = CROP
    held_out: float = 0.1
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        for what, whole in (
            ("epochs", self.epochs),
            ("batch size", self.batch_size),
            ("accumulate", self.accumulate),
        ):
            if whole < 1:
                raise InputError(f"{what} is {whole}; expected at least 1")
        if not 0.0 < self.reduction_target <= 1.0:
            raise InputError(
                f"a reduction target of {self.reduction_target:g}; expected the share of the "
                "multiply-accumulates to be left, above 0 and at most 1"
            )
        rates = {f"learning rate of {kind}": rate for kind, rate in self.lr.items()}
        rates |= {"budget weight": self.budget_weight, "learning rate": self.train_all or 0.0}
        for what, rate in rates.items():
            if not (math.isfinite(rate) and rate >= 0.0):
                raise InputError(f"{what} is {rate:g}; expected a number of 0 or more")
        for kind, value in self.start.items():
            if not 0.0 <= value <= 1.0:
                raise InputError(f"{kind} starts at {value:g}; a threshold lies in [0, 1]")
        if not (math.isfinite(self.tau) and self.tau > 0.0):
            raise InputError(f"tau is {self.tau:g}; expected a number above 0")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise InputError(f"label smoothing is {self.label_smoothing:g}; expected [0, 1)")
        if self.form not in FORMS or self.precision not in PRECISIONS:
            raise InputError(f"{self.form} in {self.precision}: no such form or precision")
        if not 0 <= self.seed < 2**31:
            raise InputError(f"seed is {self.seed}; expected 0 to 2147483647")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
