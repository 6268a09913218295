"""A tiny MobileViT, on which opsets are tried."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import ModelProto

from ltmp_export.backbones.hybrid import probe
from ltmp_export.backbones.hybrid.convolutions import Chain, Conv
from ltmp_export.backbones.mobilevit.geometry import MobileVit, Patches
from ltmp_export.backbones.mobilevit.lower import lower
from ltmp_export.precision.formats import Precision

_ACT = MobileVit.activation
_UNIT = Patches(
    path="stages.0.1",
    patch=(2, 2),
    blocks=2,
    width=4,
    mlp_width=8,
    heads=2,
    local=(
        Conv("stages.0.1.conv_kxk.conv", 4, 4, 3, norm="stages.0.1.conv_kxk.bn", act=_ACT),
        Conv("stages.0.1.conv_1x1", 4, 4),
    ),
    project=Conv("stages.0.1.conv_proj.conv", 4, 4, norm="stages.0.1.conv_proj.bn", act=_ACT),
    fusion=Conv("stages.0.1.conv_fusion.conv", 8, 4, 3, norm="stages.0.1.conv_fusion.bn", act=_ACT),
)
_NET = MobileVit(
    name="probe",
    image_size=(16, 16),
    in_chans=1,
    classes=2,
    pieces=(
        Chain((Conv("stem.conv", 1, 4, 3, 2, norm="stem.bn", act=_ACT),)),
        Chain((Conv("stages.0.0.conv3_1x1.conv", 4, 4, 3, groups=4),), shortcut=True),
        _UNIT,
    ),
    head=(4,),
    norm_eps=1e-5,
    batch_eps=1e-5,
)


def geometry(activation: str) -> MobileVit:
    """Of them."""
    return _NET


def models(opset: int, precision: Precision, activation: str) -> Iterator[ModelProto]:
    """Tiny files of a precision, see `hybrid.probe`."""
    norms = {f"{_UNIT.block(n)}.norm{k}": 4 for n in range(_UNIT.blocks) for k in (1, 2)}
    return probe.models(opset, precision, _NET, {**norms, f"{_UNIT.path}.norm": 4}, lower)
