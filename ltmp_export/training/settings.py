"""How to train."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ltmp_export.errors import InputError
from ltmp_export.images.pictures import CROP
from ltmp_export.plan.times import TimeModel

FORMS = ("aligned", "published")
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class Running:
    """What every run is told, whatever it learns.

    Attributes:
        epochs: Times that every image is seen.
        batch_size: Images of a step, over all processes and parts.
        accumulate: Parts in which each process computes its share of a step.
        label_smoothing: Of the cross-entropy.
        augment: See `images.pictures.training_transform`.
        held_out: Share of the images to measure on, where the data do not tell.
        seed: Of the order of the images, their augmentation and the split.
        precision: Of the products, where the device has it; decisions are taken in float32.
    """

    epochs: int = 1
    batch_size: int = 128
    accumulate: int = 1
    label_smoothing: float = 0.1
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
        if not 0.0 <= self.label_smoothing < 1.0:
            raise InputError(f"label smoothing is {self.label_smoothing:g}; expected [0, 1)")
        if self.precision not in PRECISIONS:
            raise InputError(f"{self.precision}: no such precision")
        if not 0 <= self.seed < 2**31:
            raise InputError(f"seed is {self.seed}; expected 0 to 2147483647")

    @property
    def moves_weights(self) -> bool:
        """Whether the weights of the ViT learn."""
        raise NotImplementedError

    def words(self) -> dict[str, Any]:
        """In the words of the authors' script, as its checkpoints have them."""
        return {
            "batch_size": self.batch_size,
            "epochs": self.epochs,
            "seed": self.seed,
            "smoothing": self.label_smoothing,
            "model_ema": False,
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Settings(Running):
    """How to learn thresholds; the defaults are the paper's (METHOD §1), made for ImageNet.

    Attributes:
        reduction_target: Share of the blocks' multiply-accumulates to be left, in (0, 1]; of the
            dense model's time where `time` is given.
        form: "aligned" for a mask that decides as the deployed model, "published" for the paper's.
        lr: Learning rate per kind of threshold.
        start: Start value per kind of threshold; the family's, or the checkpoint's, by default.
        tau: Temperature of the gradient of a decision.
        budget_weight: Factor of (r - target)² in the loss.
        train_all: Learning rate of everything else (AdamW); None leaves it frozen.
        time: What the budget is in place of the multiply-accumulates, see `plan.times`.
    """

    reduction_target: float
    form: str = "aligned"
    lr: Mapping[str, float] = field(default_factory=lambda: {"merge": 5e-3, "prune": 5e-6})
    start: Mapping[str, float] = field(default_factory=dict)
    tau: float = 0.1
    budget_weight: float = 10.0
    train_all: float | None = None
    time: TimeModel | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.reduction_target <= 1.0:
            raise InputError(
                f"a reduction target of {self.reduction_target:g}; expected the share of the "
                "multiply-accumulates to be left (or of the time), above 0 and at most 1"
            )
        rates = {f"learning rate of {kind}": rate for kind, rate in self.lr.items()}
        rates |= {"budget weight": self.budget_weight, "learning rate": self.train_all or 0.0}
        _require_rates(rates)
        for kind, value in self.start.items():
            if not 0.0 <= value <= 1.0:
                raise InputError(f"{kind} starts at {value:g}; a threshold lies in [0, 1]")
        if not (math.isfinite(self.tau) and self.tau > 0.0):
            raise InputError(f"tau is {self.tau:g}; expected a number above 0")
        if self.form not in FORMS:
            raise InputError(f"{self.form}: no such form")

    @property
    def moves_weights(self) -> bool:
        """Whether the weights of the ViT learn."""
        return self.train_all is not None

    def words(self) -> dict[str, Any]:
        """In the words of the authors' script, as its checkpoints have them."""
        target = "reduction_target" if self.time is None else "latency_target"
        return super().words() | {
            "tau": self.tau,
            target: self.reduction_target,
            "lr": self.lr.get("prune", self.lr.get("merge")),
            "opt": "sgd",
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values; of time only where there is a budget of it."""
        return {k: v for k, v in super().to_json().items() if k != "time" or v is not None}


@dataclass(frozen=True, kw_only=True)
class StaticSettings(Running):
    """How to train a whole model under a plan of fixed token counts (AdamW without decay).

    Attributes:
        lr: Learning rate of the ViT's weights.
        lr_new: Learning rate of the reduction's own; None where it has none, or for 5e-3.
        distil: Share d of the dense model's teaching in the loss, in [0, 1]:
            (1 - d) · cross-entropy + d · KL(dense ‖ reduced).
        bottleneck: Weight of the term of `training.bottleneck`, from 30 % of the epochs on.
    """

    lr: float = 1e-4
    lr_new: float | None = None
    distil: float = 0.0
    bottleneck: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        rates = {"learning rate": self.lr, "learning rate of new weights": self.lr_new or 0.0}
        rates |= {"the bottleneck's weight": self.bottleneck}
        _require_rates(rates)
        if self.bottleneck and self.epochs < 3:
            raise InputError(
                f"the bottleneck knows the classes from the third epoch on; {self.epochs} epochs "
                "never get there: train longer (--epochs), or drop it"
            )
        if not 0.0 <= self.distil <= 1.0:
            raise InputError(
                f"distillation weighs {self.distil:g}; expected the dense model's share of the "
                "loss, 0 to 1"
            )

    @property
    def moves_weights(self) -> bool:
        """They do."""
        return True

    def words(self) -> dict[str, Any]:
        """In the words of timm's script, where it has any."""
        new = {} if self.lr_new is None else {"lr_new": self.lr_new}
        terms = {"distil": self.distil, "bottleneck": self.bottleneck}
        return super().words() | new | terms | {"lr": self.lr, "opt": "adamw"}


def _require_rates(rates: Mapping[str, float]) -> None:
    for what, rate in rates.items():
        if not (math.isfinite(rate) and rate >= 0.0):
            raise InputError(f"{what} is {rate:g}; expected a number of 0 or more")
