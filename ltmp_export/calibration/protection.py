"""Which layers need 16 bits for the decisions of this model, measured on images.

Rounding changes a decision where it moves a score across its threshold. How many that will be is
told long before it happens often enough to be counted: by how far the scores nearest to a threshold
move, and how densely they lie there. The scores are compared on the same tokens, so that one
changed decision does not count again in each that follows from it.

On digits 16 images tell the layers apart as 48 do; counted were 7 changed decisions of 12,504.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from ltmp_export.backbones import rounded
from ltmp_export.backbones.rounded import Stored
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images.inputs import Images
from ltmp_export.plan import positions
from ltmp_export.plan.plan import demands
from ltmp_export.plan.scores import METRIC
from ltmp_export.plan.vit import Vit
from ltmp_export.precision.eager import layers
from ltmp_export.precision.formats import SIMILARITY, Activation, Precision
from ltmp_export.precision.integers import mean_keys, quantised
from ltmp_export.progress import Progress
from ltmp_export.reference import Reference
from ltmp_export.steps.tokens import Choice, Decision

IMAGES = 16
ROOM = 0.1  # more changed decisions are taken for what is left out, all together
NEAREST = 10  # one in so many scores is near its threshold

Choices: TypeAlias = Sequence[Sequence[Choice]]


def where_needed(
    checkpoint: Checkpoint,
    precision: Precision,
    coarse: Mapping[str, Activation],
    images: Images,
    progress: Progress,
) -> Precision:
    """Protect only what the decisions of a model need.

    Args:
        checkpoint: Balanced, see `calibration.quantise`.
        precision: Of everything that may be protected.
        coarse: The layers that may do without 16 bits, and how they are rounded then.
        images: Some of them are measured on.
        progress: Called with a few words as each candidate begins.

    Returns:
        The precision without what together changes at most `ROOM` more decisions, and with by how
        much more each candidate alone would.
    """
    measure = _Measure(checkpoint, precision, coarse, images.select(IMAGES))
    offered = [*([SIMILARITY] if _compares(checkpoint) else []), *coarse]
    least = measure.changed(())
    alone = {}
    for name in offered:
        progress(f"measuring what decisions need of {name}")
        alone[name] = measure.changed([name])
    left_out: list[str] = []
    for name in sorted(offered, key=alone.__getitem__):
        together = measure.changed([*left_out, name]) if left_out else alone[name]
        if together > least * (1 + ROOM):
            break
        left_out.append(name)
    effects = {name: found / least - 1 if least else 0.0 for name, found in alone.items()}
    return replace(
        precision,
        protected=SIMILARITY in {*offered}.difference(left_out),
        layers={**precision.layers} | {path: coarse[path] for path in left_out if path in coarse},
        effects=effects,
    )


def _compares(checkpoint: Checkpoint) -> bool:
    """Whether steps compare tokens by a metric that may have a projection of its own."""
    vit, plan = checkpoint.geometry, checkpoint.plan
    own_turns = getattr(vit, "own_turns", False) and plan.metric_position == positions.ROTATED
    return isinstance(vit, Vit) and not own_turns and any(METRIC in demands(s) for s in plan.blocks)


class _Measure:
    """Runs the int8 model with less and less protection beside the float32 one."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        precision: Precision,
        coarse: Mapping[str, Activation],
        images: Images,
    ) -> None:
        self.checkpoint = checkpoint
        self.precision = precision
        self.coarse = coarse
        self.pixels = [torch.from_numpy(image) for image in images.pixels]
        self.weights = {k: v.numpy() for k, v in checkpoint.model.state_dict().items()}
        exact = Reference(checkpoint.model, checkpoint.plan)
        self.exact = [exact.run(image).decisions for image in self.pixels]
        plan = checkpoint.plan
        steps = [plan.deciding(block) for block in range(len(plan.blocks))]
        self.taken = [_choices(steps, decisions) for decisions in self.exact]
        self.model = copy.deepcopy(checkpoint.model)
        rounded.put_integers(self.model, precision, self._integers)

    def changed(self, without: Collection[str]) -> float:
        """How many decisions are expected to change where these are not protected."""
        rounded.without_mean_keys(self.model)
        if _compares(self.checkpoint) and SIMILARITY not in without:
            rounded.put_mean_keys(self.model, self._mean_keys)
        for path, layer in layers(self.model).items():
            layer.given = (self.coarse if path in without else self.precision.layers)[path]
        reference = Reference(self.model, self.checkpoint.plan)
        pairs: dict[tuple[int, int], list[tuple[Decision, Decision]]] = {}
        for image, exact, taken in zip(self.pixels, self.exact, self.taken, strict=True):
            trace = reference.run(image, taken)
            for block, both in enumerate(zip(exact, trace.decisions, strict=True)):
                for place, pair in enumerate(zip(*both, strict=True)):
                    pairs.setdefault((block, place), []).append(pair)
        return sum(map(crossing, pairs.values()))

    def _integers(self, path: str) -> Stored:
        own = self.weights[f"{path}.weight"]
        weight, scale = quantised(own.reshape(len(own), -1))
        return Stored((weight * scale).T, self._bias(path))

    def _mean_keys(self, path: str) -> Stored:
        vit: Any = self.checkpoint.geometry
        separate = f"{path}.k_norm.weight" in self.weights
        found = mean_keys(self.weights, path, vit.key_width, separate)
        return Stored(found["weight"], found.get("bias"))

    def _bias(self, path: str) -> NDArray[np.float32] | None:
        return self.weights.get(f"{path}.bias")


def _choices(blocks: Sequence[Sequence[Any]], taken: Sequence[Sequence[Decision]]) -> Choices:
    """Decisions of one model, to be taken by another; none of a step that takes none."""
    found: list[list[Any]] = []
    for steps, decisions in zip(blocks, taken, strict=True):
        left = list(decisions)
        found.append([_choice(left.pop(0)) if left and left[0].step == s else None for s in steps])
    return found


def _choice(decision: Decision) -> Choice:
    partners = decision.partners
    if partners is None:
        return Choice(decision.chosen, order=decision.order)
    return Choice(decision.chosen, partners.index, decision.order, partners.moved)


def crossing(pairs: Sequence[tuple[Decision, Decision]]) -> float:
    """How many scores of a step are expected to cross its threshold.

    Args:
        pairs: What the exact model and the other saw on the same tokens, for each image.
    """
    moved, apart = [], []
    for exact, other in pairs:
        moved.append((other.score - exact.score).abs() / exact.unit)
        apart.append((exact.score - exact.threshold).abs() / exact.unit)
    by, distance = torch.cat(moved), torch.cat(apart)
    known = by.isfinite() & distance.isfinite()
    by, distance = by[known], distance[known]
    nearest = distance.argsort()[: -(-len(distance) // NEAREST)]
    reach = float(distance[nearest].max()) if len(nearest) else 0.0
    return float(by[nearest].sum()) / (2 * reach) if reach else 0.0
