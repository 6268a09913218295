"""Small distilled DeiTs."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.deit import VisionTransformerDistilled
from torch import nn


def distilled(**changed: Any) -> VisionTransformerDistilled:
    """A small model of random weights; with `no_embed_class` it has what timm forgets."""
    shape: dict[str, Any] = {"img_size": 24, "patch_size": 8, "embed_dim": 32, "depth": 2}
    shape |= {"num_classes": 5}
    model = VisionTransformerDistilled(num_heads=4, **(shape | changed))
    if changed.get("no_embed_class"):
        model.pos_embed = nn.Parameter(torch.empty(1, model.patch_embed.num_patches, 32))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.2 * noise + (parameter.ndim == 1))
    model.eval()
    return model
