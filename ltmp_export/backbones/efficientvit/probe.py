"""A tiny EfficientViT, on which opsets are tried."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import ModelProto

from ltmp_export.backbones.efficientvit.geometry import Cells, EfficientVit
from ltmp_export.backbones.efficientvit.lower import lower
from ltmp_export.backbones.hybrid import probe
from ltmp_export.backbones.hybrid.convolutions import Chain, Conv
from ltmp_export.precision.formats import Precision

_ACT = EfficientVit.activation
_OWN = "stages.0.blocks.1"
_ATTENTION = f"{_OWN}.context_module.main"
_LOCAL = f"{_OWN}.local_module.main"
_UNIT = Cells(
    path=_OWN,
    heads=2,
    head_width=2,
    eps=1e-5,
    qkv=Conv(f"{_ATTENTION}.qkv.conv", 4, 12),
    scales=(
        (
            Conv(f"{_ATTENTION}.aggreg.0.0", 12, 12, 5, groups=12),
            Conv(f"{_ATTENTION}.aggreg.0.1", 12, 12, groups=6),
        ),
    ),
    proj=Conv(f"{_ATTENTION}.proj.conv", 8, 4, norm=f"{_ATTENTION}.proj.norm"),
    local=Chain(
        (
            Conv(f"{_LOCAL}.inverted_conv.conv", 4, 8, act=_ACT),
            Conv(f"{_LOCAL}.point_conv.conv", 8, 4, norm=f"{_LOCAL}.point_conv.norm"),
        ),
        shortcut=True,
    ),
)
_NET = EfficientVit(
    name="probe",
    image_size=(8, 8),
    in_chans=1,
    classes=2,
    pieces=(
        Chain((Conv("stem.in_conv.conv", 1, 4, 3, 2, norm="stem.in_conv.norm", act=_ACT),)),
        _UNIT,
    ),
    head=(4, 6),
    norm_eps=1e-5,
    batch_eps=1e-5,
)


def geometry(activation: str) -> EfficientVit:
    """Of them."""
    return _NET


def models(opset: int, precision: Precision, activation: str) -> Iterator[ModelProto]:
    """Tiny files of a precision, see `hybrid.probe`."""
    return probe.models(opset, precision, _NET, {"head.classifier.1": 6}, lower)
