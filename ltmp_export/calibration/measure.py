"""What a model with some thresholds does to images: tokens, multiply-accumulates, classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

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
        classes: [n] int64 top-1.
        mac_ratio: Mean over the images of executed by dense multiply-accumulates.
    """

    counts: NDArray[np.int64]
    classes: NDArray[np.int64]
    mac_ratio: float

    @property
    def tokens(self) -> tuple[float, ...]:
        """Mean tokens after each block."""
        return tuple(self.counts.mean(0).tolist())

    def agreement(self, classes: NDArray[np.int64]) -> float:
        """Share of the images whose top-1 is the one given: labels, or another model's."""
        return float((self.classes == classes).mean())


@torch.inference_mode()
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
    device = next(model.parameters()).device
    counts, classes = [], []
    for batch in images.batches(BATCH, workers):
        output = model(batch.to(device))
        if not output.logits.isfinite().all():
            raise InputError(
                f"{images.origin}: an image leads to NaN or infinite logits; look for values out "
                "of range (--mean and --std?)"
            )
        counts.append(output.counts.cpu().numpy())
        classes.append(output.logits.argmax(1).cpu().numpy())
    together = np.concatenate(counts)
    share = executed_share(vit, plan or dense_plan(vit.depth), together.tolist())
    return Measured(together, np.concatenate(classes), share)


@torch.inference_mode()
def dense_classes(
    model: VisionTransformer, images: Labelled, workers: int = 0
) -> NDArray[np.int64]:
    """Top-1 of the model as timm runs it, nothing reduced; [n]."""
    device = next(model.parameters()).device
    found: list[Tensor] = [
        model(batch.to(device)).argmax(1) for batch in images.batches(BATCH, workers)
    ]
    classes: NDArray[np.int64] = torch.cat(found).cpu().numpy()
    return classes
