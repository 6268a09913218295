"""A ViT whose classifier is given the class token and the mean of the patches, as DINOv2's is."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ltmp_export.plan.vit import CLASS_AND_MEAN


class ClassAndMean(VisionTransformer):  # type: ignore[misc]  # timm is untyped
    """timm's ViT with a classifier of twice the width.

    Source: DINOv2's linear classifier, `Dinov2ForImageClassification`.
    """

    def __init__(self, **shape: Any) -> None:
        super().__init__(**{**shape, "global_pool": "token", "fc_norm": False})
        self.global_pool = CLASS_AND_MEAN
        self.head = nn.Linear(2 * self.embed_dim, self.num_classes)

    def pool(self, x: Tensor, pool_type: str | None = None) -> Tensor:
        """[B, N, C] → [B, 2C], registers left out."""
        return torch.cat([x[:, 0], x[:, self.num_prefix_tokens :].mean(1)], 1)
