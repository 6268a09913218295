"""Tiny models of timm's `Eva` that hold the operators of their files, see `runtimes.opsets`."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import ModelProto

from ltmp_export.backbones.eva.geometry import Eva
from ltmp_export.backbones.positioned import probe
from ltmp_export.backbones.positioned.geometry import Positioned
from ltmp_export.plan.positions import ROTARY
from ltmp_export.precision.formats import Precision


def geometry(activation: str) -> Positioned:
    """Of them."""
    return probe.geometry(Eva, ROTARY, activation)


def models(opset: int, precision: Precision, activation: str) -> Iterator[ModelProto]:
    """See `positioned.probe.models`."""
    yield from probe.models(geometry(activation), opset, precision)
