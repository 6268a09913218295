"""From weights and timm's name to an EfficientViT of MIT."""

from __future__ import annotations

from ltmp_export.backbones.built import Built
from ltmp_export.backbones.efficientvit.describe import describe
from ltmp_export.backbones.efficientvit.geometry import CLASSES, NAME
from ltmp_export.backbones.hybrid.build import Network, Weights
from ltmp_export.backbones.hybrid.build import build as built
from ltmp_export.statements.gather import Statements
from ltmp_export.statements.timm_names import TimmName

_NETWORK = Network(
    NAME,
    CLASSES,
    "efficientvit_b1",
    "stem.in_conv.conv.weight",
    "head.classifier.4.weight",
    describe,
)


def build(
    weights: Weights,
    name: str | None,
    says: Statements | None = None,
    *,
    source: str = "the checkpoint",
    timm_name: TimmName | None = None,
    where: str = "its name",
) -> Built:
    """Build the timm model these weights belong to, see `vit.build.build`.

    Raises:
        InputError: Nothing tells timm's name, the weights are not those of that model, or it has a
            feature that is not supported.
    """
    return built(_NETWORK, weights, says or Statements(), source, timm_name, where)
