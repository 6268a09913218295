"""An exported model as the tests run it: lowered, validated, in one onnxruntime CPU session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltmp_export.backbones.vit.lower import lower
from ltmp_export.model_file.validate import validate
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.vit import Vit


@dataclass(frozen=True)
class Result:
    """What a call, or several joined, gave: logits [B, classes] and counts [B, depth]."""

    logits: NDArray[np.float32]
    counts: NDArray[np.int64]


class Exported:
    """The graph of a ViT under a plan, ready to run.

    Args:
        vit: Geometry.
        plan: The steps of each block.
        model: The timm model, for its weights.
        opset: Version of the standard domain.
        batch_size: 1 for a graph of single images, None for any batch.
    """

    def __init__(
        self,
        vit: Vit,
        plan: Plan,
        model: torch.nn.Module,
        opset: int,
        batch_size: int | None = None,
    ) -> None:
        own = {name: value.numpy() for name, value in plan.parameters.items()}
        weights = numpy_weights(model) | own
        proto = lower(vit, plan, weights, opset=opset, batch_size=batch_size, token_counts=True)
        validate(proto, opset)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = ort.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, images: Tensor) -> Result:
        """All images [B, channels, height, width] in one call."""
        logits, counts = self.session.run(["logits", "token_counts"], {"images": images.numpy()})
        return Result(logits, counts)

    def run_in_batches(self, images: Tensor, batch: int) -> Result:
        """The same images, at most `batch` of them in each call."""
        parts = [self.run(part) for part in chunks(images, batch)]
        return Result(
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.counts for part in parts]),
        )


def chunks(images: Tensor, batch: int) -> Iterator[Tensor]:
    """Images [B, …] cut into batches; the last may be shorter."""
    return (images[start : start + batch] for start in range(0, len(images), batch))


def numpy_weights(model: torch.nn.Module) -> dict[str, NDArray[Any]]:
    """The weights by timm name."""
    return {name: value.numpy() for name, value in model.state_dict().items()}
