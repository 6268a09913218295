"""How near a checkpoint's decisions are to falling otherwise, before anything is deployed.

The reference, in float64, runs every image; for each step of each block the distances
|score - threshold| of all tokens are pooled. A merging source also decides for a partner: the lead
of the best over the second best is a distance of its own. What a runtime or a precision rounds by
decides which of these decisions it can flip: float32 in onnxruntime is off by some 1e-6 of a score.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.files.plain import plain
from ltmp_export.images.inputs import Images
from ltmp_export.parity.decisions import leads, margin, steps_down
from ltmp_export.progress import Progress, silent
from ltmp_export.reference import Reference
from ltmp_export.steps.tokens import Decision

LIMITS = (1e-6, 1e-5, 1e-4, 1e-3)
PRECISIONS = {"float32": 3e-6, "float16": 5e-4}  # measured with onnxruntime; half a rounding step
Kind = tuple[str, float | None]  # a step, or "partner", and its threshold
QUANTILES = (0.0, 0.01, 0.5)


@dataclass(frozen=True)
class StepMargins:
    """The distances of one kind of decision in one block.

    Attributes:
        block: Index of the block.
        step: "merge" and "prune" against the threshold, or where a number is fixed against the
            middle between the last score taken and the first left; "partner" against the second
            best; "order" against the next, relative.
        threshold: The frozen threshold, if there is one.
        decisions: How many, over all images.
        quantiles: Distances at `QUANTILES`: smallest, 1 %, median.
        closer: Share of the images with a decision closer than each of `LIMITS`.
    """

    block: int
    step: str
    threshold: float | None
    decisions: int
    quantiles: tuple[float, ...]
    closer: tuple[float, ...]


@dataclass(frozen=True)
class Margins:
    """All of them.

    Attributes:
        images: Where the images come from.
        count: How many.
        steps: One for each kind of decision in each block.
        closer: Share of the images with any decision closer than each of `LIMITS`.
        at_risk: Share of the images with any decision that each of `PRECISIONS` can flip, its
            rounding taken relative to the score as `decisions` says.
    """

    images: str
    count: int
    steps: tuple[StepMargins, ...]
    closer: tuple[float, ...]
    at_risk: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values; a quantile of no decisions becomes None."""
        levels = {"limits": LIMITS, "precisions": PRECISIONS, "levels": QUANTILES}
        return dict(plain(asdict(self) | levels))


def margins(checkpoint: Checkpoint, images: Images, progress: Progress = silent) -> Margins:
    """Measure the distances of all decisions on these images, at least one."""
    reference = Reference(checkpoint.model, checkpoint.plan, torch.float64)
    pooled: dict[tuple[int, Kind], list[Tensor]] = defaultdict(list)
    nearest: list[float] = []  # of each image, relative
    for number, pixels in enumerate(images.pixels):
        progress(f"measuring image {number + 1} of {len(images)}")
        trace = reference.run(torch.from_numpy(pixels))
        for block, decisions in enumerate(trace.decisions):
            for decision in decisions:
                for key, distance in _distances(decision).items():
                    pooled[block, key].append(distance)
        nearest.append(min((margin(d) for block in trace.decisions for d in block), default=1.0))
    steps = [_summary(block, *key, found) for (block, key), found in pooled.items()]
    per_image = zip(*pooled.values(), strict=True)
    return Margins(
        images=images.origin,
        count=len(images),
        steps=tuple(steps),
        closer=_closer([torch.cat(found) for found in per_image] or [torch.empty(0)]),
        at_risk={
            name: sum(n < at for n in nearest) / len(nearest) for name, at in PRECISIONS.items()
        },
    )


def _distances(decision: Decision) -> dict[Kind, Tensor]:
    """Absolute distances of one step, by kind and threshold."""
    step = decision.step
    key: Kind = (step.action, step.learned)
    apart = (decision.score[decision.protected :] - decision.threshold).abs().double()
    found = {key: apart[apart < torch.inf]}  # none where all, or none, are taken
    if decision.partners is not None:
        found["partner", None] = leads(decision)
    if decision.order is not None:
        found["order", None] = steps_down(decision)
    return found


def _summary(block: int, step: str, threshold: float | None, found: list[Tensor]) -> StepMargins:
    together = torch.cat(found)
    levels = torch.tensor(QUANTILES, dtype=torch.float64)
    quantiles = together.quantile(levels).tolist() if len(together) else [torch.inf] * len(levels)
    return StepMargins(block, step, threshold, len(together), tuple(quantiles), _closer(found))


def _closer(images: list[Tensor]) -> tuple[float, ...]:
    """Share of the images with a distance below each of `LIMITS`."""
    return tuple(sum(bool((d < limit).any()) for d in images) / len(images) for limit in LIMITS)
