"""A model file checked against a checkpoint."""

from __future__ import annotations

import onnx

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images import inputs
from ltmp_export.parity import compare
from ltmp_export.parity.report import CheckReport


def check(
    model: onnx.ModelProto, checkpoint: Checkpoint, images: inputs.Images, *sizes: int
) -> CheckReport:
    """The report on batches of these sizes, by default of one image."""
    return compare.compare(model, checkpoint, images, batch_sizes=sizes or (1,))
