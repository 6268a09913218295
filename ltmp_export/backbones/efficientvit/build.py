"""From weights and timm's name to an EfficientViT of MIT."""

from __future__ import annotations

from functools import partial

from ltmp_export.backbones.efficientvit.describe import describe
from ltmp_export.backbones.efficientvit.geometry import CLASSES, NAME
from ltmp_export.backbones.hybrid import build as hybrid

_NETWORK = hybrid.Network(
    NAME,
    CLASSES,
    "efficientvit_b1",
    "stem.in_conv.conv.weight",
    "head.classifier.4.weight",
    describe,
)

build = partial(hybrid.build, _NETWORK)
