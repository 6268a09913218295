"""From weights and timm's name to a MobileViT."""

from __future__ import annotations

from functools import partial

from ltmp_export.backbones.hybrid import build as hybrid
from ltmp_export.backbones.mobilevit.describe import describe
from ltmp_export.backbones.mobilevit.geometry import CLASSES, NAME

_NETWORK = hybrid.Network(
    NAME, CLASSES, "mobilevit_s", "stem.conv.weight", "head.fc.weight", describe
)

build = partial(hybrid.build, _NETWORK)
