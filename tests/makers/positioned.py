"""Small random ViTs of timm's `Eva` and `Beit`, and files of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

SIZE = (64, 48)  # 12 patches of 16 x 16
WIDTH, HEADS, DEPTH = 32, 2, 3
# What each of them is here for.
CLIP = (
    "eva02_base_patch16_clip_224"  # q, k and v apart, norms inside, a reference grid, class token
)
DINO = "vit_tiny_patch16_dinov3_qkvb"  # registers, centred places, halves that turn, q and v biases
PLUS = "vit_small_plus_patch16_dinov3"  # the same without biases, a gated MLP of two layers
SAPIENS = "vit_base_patch16_sapiens2"  # fewer heads of keys, RMSNorm, registers
MIXED = "vit_small_patch16_rope_mixed_ape_224"  # frequencies of each block and head
SPATIAL = "vit_pe_spatial_tiny_patch16_512"  # columns first, an offset, a norm in front, averages
CORE = "vit_pe_core_tiny_patch16_384"  # attention pooling of all rows
POST = "eva02_enormous_patch14_clip_224"  # norms behind, no rotary positions
GAP = "vit_medium_patch16_rope_reg1_gap_256"  # a register and no class token
BEIT = "beit_base_patch16_224"  # relative position bias

_MORE: dict[str, dict[str, Any]] = {
    SAPIENS: {"num_kv_heads": (2, 1, 1)},
    POST: {"patch_size": 16},
}


@functools.cache
def model(name: str) -> nn.Module:
    """The model of that name, small; do not change it."""
    return made(name)


def made(name: str, **kwargs: Any) -> nn.Module:
    """The same with other arguments of timm's."""
    sizes = {"img_size": SIZE, "embed_dim": WIDTH, "num_heads": HEADS, "depth": DEPTH}
    more = {"num_classes": 5, "in_chans": 1} | _MORE.get(name, {})
    built: nn.Module = timm.create_model(name, pretrained=False, **sizes | more | kwargs)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for key, value in built.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if "norm" in key and key.endswith("weight"):
                value.copy_(1 + 0.3 * noise)
            elif key.endswith(("bias", "gamma_1", "gamma_2")):
                value.copy_(0.5 + 0.3 * noise if "gamma" in key else 0.3 * noise)
            elif key.endswith(("table", "freqs", "token", "pos_embed")):
                value.copy_(noise)
            else:
                gain = 2.0 if "attn.q" in key or "attn.k" in key else 1.0
                value.copy_(gain * noise / math.sqrt(value[0].numel()))
    return built.eval().requires_grad_(False)


def save(
    path: Path,
    built: Any,
    name: str,
    *,
    merge: Sequence[float] = (),
    prune: Sequence[float] = (),
    **args: Any,
) -> Path:
    """A file as the authors' script writes it where there are thresholds, else as timm's does."""
    state = dict(built.state_dict())
    for kind, values in (("merge", merge), ("prune", prune)):
        keys = (f"blocks.{block}.{kind}_masker.threshold" for block in range(len(values)))
        state |= {key: torch.tensor([value]) for key, value in zip(keys, values, strict=True)}
    family = "ltmp_" if merge and prune else "ltm_" if merge else ""
    height, width = built.patch_embed.img_size
    words = {
        "input_size": [1, height, width],
        "num_heads": HEADS,
        "mean": [0.5],
        "std": [0.5],
    } | args
    torch.save({"state_dict": state, "arch": family + name, "args": words}, path)
    return path


def images(count: int = 3) -> torch.Tensor:
    """Noise [count, 1, height, width] of rising contrast."""
    generator = torch.Generator().manual_seed(5)
    contrast = torch.linspace(0.3, 2.0, count)[:, None, None, None]
    return contrast * torch.randn((count, 1, *SIZE), generator=generator)
