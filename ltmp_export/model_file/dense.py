"""The dense model of an exported file's weights: what the file is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from ltmp_export.backbones import chosen
from ltmp_export.errors import ExportError, InputError
from ltmp_export.graph import interface
from ltmp_export.model_file.model import ExportedModel
from ltmp_export.model_file.validate import validate
from ltmp_export.plan.plan import Plan, dense_plan
from ltmp_export.precision.formats import Precision
from ltmp_export.precision.weights import Weights, integer_weight

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


def dense_baseline(
    exported: ExportedModel, outputs: Sequence[str] | None = None
) -> onnx.ModelProto:
    """The dense float32 model of the same weights, opset and batch, written by the same code.

    It gives what the file gives, or these outputs. The weights are those that the file holds: of
    one in lower precision they are the rounded ones, float16 as float32, int8 times its scales.

    Raises:
        InputError: The file lacks a weight, or an int8 weight the scales of its outputs.
        ExportError: Its weights do not make a model.
    """
    return rebuilt(exported, dense_plan(exported.geometry.depth), outputs=outputs)


def rebuilt(
    exported: ExportedModel,
    plan: Plan,
    precision: Precision | None = None,
    outputs: Sequence[str] | None = None,
) -> onnx.ModelProto:
    """The model of the same weights under another plan, which has none of its own.

    Args:
        exported: The file, see `dense_baseline`.
        plan: What happens to the tokens.
        precision: In which numbers it computes, float32 by default; for int8 with its layers.
        outputs: What it gives, by default what the file gives.

    Raises:
        InputError: As for `dense_baseline`; so is the next.
        ExportError: Its weights do not make a model.
    """
    try:
        model: onnx.ModelProto = chosen.module(exported.geometry.kind, "lower").lower(
            exported.geometry,
            plan,
            _Stored(exported.proto, exported.precision),
            opset=exported.opset,
            batch_size=interface.fixed_batch(exported.proto),
            outputs=outputs or exported.outputs or None,
            precision=precision or Precision(),
        )
    except (KeyError, IndexError, ExportError) as err:
        reason = str(err) if isinstance(err, ExportError) else f"it lacks {err}"
        raise InputError(
            f"the {plan.family} model cannot be written from {exported.path}: {reason}; give "
            "another baseline, or export it again"
        ) from err
    validate(model, exported.opset)
    return model


class _Stored(Mapping[str, NDArray[Any]]):
    """The weights of a model as float32 by checkpoint name, each made when it is asked for.

    Args:
        model: The model.
        precision: Which of its layers are int8, and how their weights were scaled.
    """

    def __init__(self, model: onnx.ModelProto, precision: Precision) -> None:
        self._stored = Weights(model)
        self._floats = {t.name: t for t in model.graph.initializer if t.data_type in _FLOATS}
        self._precision = precision
        self._int8 = {f"{path}.weight": path for path in precision.layers}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name in self._int8:
            path = self._int8[name]
            return integer_weight(self._stored, path, self._precision).astype(np.float32)
        array: NDArray[Any] = numpy_helper.to_array(self._floats[name])
        return array.astype(np.float32, copy=False)

    def __contains__(self, name: object) -> bool:
        return name in self._floats or name in self._int8

    def __iter__(self) -> Iterator[str]:
        yield from self._floats
        yield from self._int8

    def __len__(self) -> int:
        return len(self._floats) + len(self._int8)
