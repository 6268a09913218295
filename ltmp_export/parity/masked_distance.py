"""How far the published masked form of a checkpoint is from what gets deployed.

The masked form of the paper's training code is another function of the same weights and thresholds
(METHOD §1): from the second block that removes tokens on, it removes others. Accuracy measured
while training with it is not that of the deployed model; this says by how much they differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images.inputs import Images
from ltmp_export.progress import Progress, silent
from ltmp_export.reference import Reference
from ltmp_export.training.forms import PUBLISHED
from ltmp_export.training.model import MaskedVit


@dataclass(frozen=True)
class MaskedDistance:
    """The published masked form against the deployed model.

    Attributes:
        images: How many were compared.
        agreement: Share of them with the same top-1.
        counts_equal: Share of them with the same number of tokens after every block.
        deployed: Mean tokens after each block, as deployed.
        masked: Likewise, in the masked form.
        apart: Mean difference of an image's tokens after each block, without sign.
        logit_difference: Largest difference of a logit.
    """

    images: int
    agreement: float
    counts_equal: float
    deployed: tuple[float, ...]
    masked: tuple[float, ...]
    apart: tuple[float, ...]
    logit_difference: float


def masked_distance(
    checkpoint: Checkpoint, images: Images, progress: Progress = silent
) -> MaskedDistance:
    """Compare the two on these images, at least one.

    The masked form runs as it is evaluated after training, without its smoothing.
    """
    plan = checkpoint.plan
    model = MaskedVit(
        checkpoint.model, families.load(plan.family), plan.thresholds(), PUBLISHED, plan=plan
    ).eval()
    reference = Reference(checkpoint.model, plan)
    logits, counts = [], []
    for number, pixels in enumerate(images.pixels):
        progress(f"the masked form, image {number + 1} of {len(images)}")
        image = torch.from_numpy(pixels)
        trace = reference.run(image)
        with torch.inference_mode():
            output = model(image[None])
        logits.append((trace.logits.numpy(), output.logits[0].numpy()))
        counts.append((trace.counts, output.counts[0].tolist()))
    deployed, masked = np.array(counts).transpose(1, 0, 2)  # [n, depth] each
    classes, masked_classes = np.array(logits).argmax(2).T
    ours, theirs = np.array(logits).transpose(1, 0, 2)
    same = (classes == masked_classes) & np.isfinite(theirs).all(1)
    return MaskedDistance(
        images=len(images),
        agreement=float(same.mean()),
        counts_equal=float((deployed == masked).all(1).mean()),
        deployed=tuple(deployed.mean(0).tolist()),
        masked=tuple(masked.mean(0).tolist()),
        apart=tuple(np.abs(deployed - masked).mean(0).tolist()),
        logit_difference=float(np.abs(ours - theirs).max()),
    )
