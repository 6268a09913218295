"""Models in lower precision as the tests make and run them."""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from ltmp_export.backbones.vit import lower
from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images.inputs import Images
from ltmp_export.plan.linears import rounded
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.vit import Vit
from ltmp_export.precision.formats import (
    DYNAMIC,
    FP16,
    FP32,
    INT8,
    QDQ,
    STATIC,
    Activation,
    Precision,
)
from ltmp_export.reference import Reference
from ltmp_export.runtimes.session import Session

Array: TypeAlias = NDArray[Any]
Weights: TypeAlias = dict[str, Array]

FORMS = {
    "static": Precision(INT8),
    "dynamic": Precision(INT8, scales=DYNAMIC),
    "fp16": Precision(FP16),
    "fp16 io": Precision(FP16, io=FP16),
}
BETWEEN = {"qdq": Precision(INT8, int8_form=QDQ)}
UNPROTECTED = {
    "static unprotected": Precision(INT8, protected=False),
    "fp16 unprotected": Precision(FP16, protected=False),
}
DIGITS = Vit(
    "digits", (32, 32), (4, 4), in_chans=3, classes=10, depth=6, width=128, mlp_width=512, heads=2,
    head_width=64, norm_eps=1e-6, activation="gelu", pool="token",
)  # fmt: skip
BALANCING = 2e-5  # of the reference's logits: 6.4e-6 on the digits, 4.8e-6 on the random ViTs


def prepared(
    checkpoint: Checkpoint, pixels: NDArray[np.float32], form: str
) -> tuple[Checkpoint, Precision]:
    precision = ({FP32: Precision()} | FORMS | BETWEEN | UNPROTECTED)[form]
    if precision.kind != INT8:
        return checkpoint, precision
    names = tuple(map(str, range(len(pixels))))
    return quantise.prepare(checkpoint, Images(pixels, None, names, "test"), precision)


def unmeasured(scales: str = STATIC, protected: bool = True, vit: Vit = DIGITS) -> Precision:
    """int8 for the digits with one made-up scale everywhere: for the graph, not its numbers."""
    scale = 0.1 if scales == STATIC else None
    layers = {
        layer.path: Activation(scale, terms=2 if protected and layer.fine else 1)
        for layer in rounded(vit)
    }
    return Precision(INT8, protected=protected, scales=scales, layers=layers)


def written(
    checkpoint: Checkpoint,
    plan: Plan,
    precision: Precision,
    opset: int = 17,
    batch_size: int | None = None,
) -> onnx.ModelProto:
    """The graph of a checkpoint under another plan, not validated."""
    tensors = checkpoint.model.state_dict() | dict(plan.parameters)
    weights = {name: tensor.numpy() for name, tensor in tensors.items()}
    return lower.lower(
        checkpoint.vit, plan, weights, opset=opset, batch_size=batch_size, token_counts=True,
        precision=precision,
    )  # fmt: skip


def session(model: onnx.ModelProto) -> Session:
    return Session(model, threads=1)


def in_batches(model: onnx.ModelProto, pixels: NDArray[np.float32], size: int) -> Array:
    """Logits of images, so many at a time."""
    opened = session(model)
    parts = [opened.run(pixels[at : at + size])[0] for at in range(0, len(pixels), size)]
    return np.concatenate(parts)


def weights_of(model: onnx.ModelProto) -> Weights:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Element types of the inner tensors by ONNX's own inference."""
    whole = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    return {value.name: value.type.tensor_type.elem_type for value in whole.graph.value_info}


def same_class(one: Array, other: Array) -> int:
    return int((one.argmax(axis=1) == other.argmax(axis=1)).sum())


def reference_logits(checkpoint: Checkpoint, pixels: NDArray[np.float32]) -> Array:
    """Logits [n, classes] in float32, image by image."""
    reference = Reference(checkpoint.model, checkpoint.plan)
    return np.stack([reference.run(torch.from_numpy(image)).logits.numpy() for image in pixels])
