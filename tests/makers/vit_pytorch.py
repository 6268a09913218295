"""Weights as vit-pytorch saves its ViT with PatchMerger."""

from __future__ import annotations

import torch
from torch import Tensor

WIDTH, HIDDEN, CLASSES, DEPTH = 24, 40, 5, 2

Weights = dict[str, Tensor]


def random_weights(
    channels: int = 3, patch: int = 4, patches: int = 9, heads: int = 2, head_width: int = 12
) -> Weights:
    """What vit-pytorch saves today, every number random, norms and biases included."""
    inner, pixels = heads * head_width, channels * patch * patch
    shapes: dict[str, tuple[int, ...]] = {"pos_embedding": (1, patches + 1, WIDTH)}
    shapes["transformer.patch_merger.queries"] = (4, WIDTH)
    linear = {"to_patch_embedding.2": (WIDTH, pixels), "mlp_head.1": (CLASSES, WIDTH)}
    norms = {"to_patch_embedding.1": pixels, "to_patch_embedding.3": WIDTH}
    norms |= {"transformer.norm": WIDTH, "transformer.patch_merger.norm": WIDTH}
    for layer in (f"transformer.layers.{index}" for index in range(DEPTH)):
        norms |= {f"{layer}.0.norm": WIDTH, f"{layer}.1.net.0": WIDTH}
        shapes[f"{layer}.0.to_qkv.weight"] = (3 * inner, WIDTH)
        linear |= {f"{layer}.1.net.1": (HIDDEN, WIDTH), f"{layer}.1.net.4": (WIDTH, HIDDEN)}
        if (heads, head_width) != (1, WIDTH):
            linear[f"{layer}.0.to_out.0"] = (WIDTH, inner)
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    shapes |= {f"{name}.{part}": (n,) for name, n in norms.items() for part in ("weight", "bias")}
    generator = torch.Generator().manual_seed(0)
    noise = {key: 0.3 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    return {key: v + (key.removesuffix(".weight") in norms) for key, v in noise.items()}
