"""An exported model whose thresholds are inputs, so that one session serves thousands of them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import helper
from torch import Tensor

from ltmp_export.backbones.vit.lower import lower
from ltmp_export.graph import interface
from ltmp_export.parity import taps
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.step import Step
from ltmp_export.plan.vit import Vit
from ltmp_export.steps.merge.step import Merge
from ltmp_export.steps.prune.step import Prune
from tests.makers.exported import Result, numpy_weights

# The ends of [0, 1], their nearest neighbours inside, and the middle.
_NEIGHBOURS = np.nextafter(np.array([0, 1], np.float32), np.array([1, 0], np.float32))
CORNERS = (0.0, 1.0, 0.5, *map(float, _NEIGHBOURS))


class Adjustable:
    """The graph with its threshold constants taken out and scores and decisions as outputs.

    Thresholds are given block by block, each block's in the order of its steps.

    Args:
        vit: Geometry.
        plan: Whose steps are taken; its thresholds are not used.
        model: The timm model, for its weights.
        batch_size: 1 for a graph of single images, None for any batch.
    """

    def __init__(
        self, vit: Vit, plan: Plan, model: torch.nn.Module, batch_size: int | None = None
    ) -> None:
        self.plan, self.tokens = plan, vit.patches + 1
        self._lower = functools.partial(
            lower,
            vit,
            weights=numpy_weights(model),
            opset=17,
            batch_size=batch_size,
            token_counts=True,
        )
        proto = self._lower(plan)
        self.names = [name for _, _, name, _ in taps.thresholds(plan)]
        constants = {stored.name: stored for stored in proto.graph.initializer}
        for name in self.names:
            kind, shape = constants[name].data_type, constants[name].dims
            proto.graph.initializer.remove(constants[name])
            proto.graph.input.append(helper.make_tensor_value_info(name, kind, shape))
        self.session = self._open(proto)

    def _open(self, proto: onnx.ModelProto) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        copy = interface.tapped(proto, taps.names(self.plan))
        return ort.InferenceSession(
            copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, images: Tensor, thresholds: Sequence[float]) -> tuple[Result, list[taps.Record]]:
        """What the graph gives, and how it came to it, image by image."""
        feed = {n: np.array(v, np.float32) for n, v in zip(self.names, thresholds, strict=True)}
        found = self.session.run(None, feed | {"images": images.numpy()})
        outputs = [output.name for output in self.session.get_outputs()]
        tensors = dict(zip(outputs, found, strict=True))
        records = [taps.read(self.plan, tensors, row, self.tokens) for row in range(len(images))]
        return Result(tensors["logits"], tensors["token_counts"]), records

    def run_fixed(self, images: Tensor, thresholds: Sequence[float]) -> Result:
        """The same from a graph that holds these thresholds as constants, as exported files do."""
        session = self._open(self._lower(with_thresholds(self.plan, thresholds)))
        return Result(*session.run(["logits", "token_counts"], {"images": images.numpy()}))

    def draw(self, rng: np.random.Generator, images: Tensor) -> list[float]:
        """Thresholds from the corners, and as many equal to a score that these images have there.

        A score depends on the thresholds before it only, so that it will be met again.
        """
        drawn = [0.5] * len(self.names)
        for place in range(len(drawn)):
            drawn[place] = float(rng.choice(CORNERS))
            if rng.random() < 0.5:
                _, records = self.run(images, drawn)
                scores = np.concatenate([steps_of(record)[place].score[1:] for record in records])
                allowed = scores[(scores >= 0) & (scores <= 1)]
                drawn[place] = float(rng.choice(allowed)) if len(allowed) else drawn[place]
        return drawn


def with_thresholds(plan: Plan, thresholds: Sequence[float]) -> Plan:
    """The same steps with other thresholds."""
    values = iter(thresholds)
    made: list[tuple[Step, ...]] = []
    for steps in plan.blocks:
        pairs = [(step.action, value) for step, value in zip(steps, values, strict=False)]
        made.append(tuple(Merge(v) if kind == "merge" else Prune(v) for kind, v in pairs))
    return Plan(plan.family, tuple(made))


def steps_of(record: taps.Record) -> list[taps.StepRecord]:
    """The steps of all blocks, one after the other."""
    return [step for block in record.blocks for step in block.steps]


def margin(record: taps.Record, thresholds: Sequence[float]) -> float:
    """Check that all decisions follow from the scores, strictly; distance of the closest one."""
    distances = [np.inf]
    for step, threshold in zip(steps_of(record), np.array(thresholds, np.float32), strict=True):
        scores = step.score[1:]  # without the class token
        np.testing.assert_array_equal(step.choice.chosen[1:].numpy(), scores > threshold)
        distances += list(np.abs(scores - threshold))
    return min(distances)
