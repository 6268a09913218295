"""What a model with some thresholds does to images: tokens, multiply-accumulates, classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ltmp_export.calibration import neighbours
from ltmp_export.errors import InputError
from ltmp_export.images.labelled import Labelled
from ltmp_export.plan.plan import Plan, dense_plan
from ltmp_export.plan.vit import Vit
from ltmp_export.plan.work import executed_share

BATCH = 16


@dataclass(frozen=True)
class Measured:
    """Some images through a model.

    Attributes:
        counts: [n, depth] int64 tokens after each block.
        answers: [n] int64 top-1; of a model without classifier [n, C] its features.
        mac_ratio: Mean over the images of executed by dense multiply-accumulates.
    """

    counts: NDArray[np.int64]
    answers: NDArray[Any]
    mac_ratio: float

    @property
    def tokens(self) -> tuple[float, ...]:
        """Mean tokens after each block."""
        return tuple(self.counts.mean(0).tolist())

    def agreement(self, answers: NDArray[Any]) -> float:
        """Share of the images whose top-1 is the one given: labels, or another model's.

        Of features the mean cosine with those of another model.
        """
        if self.answers.ndim == 2:
            return float(neighbours.cosines(self.answers, answers).mean())
        return float((self.answers == answers).mean())


class Portion(NamedTuple):
    """A batch through a model: `counts` [b, depth], `answers` as in `Measured`."""

    counts: NDArray[np.int64]
    answers: NDArray[Any]


def measure(
    model: nn.Module, vit: Vit, images: Labelled, workers: int = 0, plan: Plan | None = None
) -> Measured:
    """Run all images through a model that must take the decisions of the deployed one.

    Args:
        model: In eval mode; for a batch of images it gives `logits` and `counts`.
        vit: Its geometry.
        images: At least one.
        workers: Processes that read images.
        plan: Of which steps there is work beside what the counts tell; by default there is none,
            as of steps with thresholds.

    Raises:
        InputError: An image leads to logits that are not finite.
    """
    batches = images.batches(BATCH, workers)
    found = [portion(model, vit, batch, images.origin) for batch in batches]
    return together(found, vit, plan)


@torch.inference_mode()
def portion(model: nn.Module, vit: Vit, batch: Tensor, origin: str) -> Portion:
    """A batch of images [b, channels, H, W], see `measure`."""
    output = model(batch.to(next(model.parameters()).device))
    if not output.logits.isfinite().all():
        raise InputError(
            f"{origin}: an image leads to NaN or infinite logits; look for values out "
            "of range (--mean and --std?)"
        )
    return Portion(output.counts.cpu().numpy(), _answers(output.logits, vit.classes))


def together(found: Iterable[Portion], vit: Vit, plan: Plan | None = None) -> Measured:
    """All batches, in their order."""
    counts, answers = (np.concatenate(parts) for parts in zip(*found, strict=True))
    share = executed_share(vit, plan or dense_plan(vit.depth), counts.tolist())
    return Measured(counts, answers, share)


def _answers(logits: Tensor, classes: int) -> NDArray[Any]:
    """Top-1 [b], or features [b, C], which a model without classifier gives for logits."""
    found: NDArray[Any] = (logits.argmax(1) if classes else logits.float()).cpu().numpy()
    return found


def dense_answers(model: VisionTransformer, images: Labelled, workers: int = 0) -> NDArray[Any]:
    """What the model says as timm runs it, nothing reduced, see `Measured`."""
    batches = images.batches(BATCH, workers)
    return np.concatenate([dense_portion(model, batch) for batch in batches])


@torch.inference_mode()
def dense_portion(model: VisionTransformer, batch: Tensor) -> NDArray[Any]:
    """The same of a batch."""
    return _answers(model(batch.to(next(model.parameters()).device)), model.num_classes)
