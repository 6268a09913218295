"""What was probably meant by a name that is nearly right, or by a checkpoint of another kind."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

# Keys that only one architecture has.
_ARCHITECTURES: tuple[tuple[str, str], ...] = (
    (r"layer\d+\.\d+\.(conv|bn)\d\.", "a ResNet"),
    (r"layers\.\d+\.blocks\.\d+\.attn\.", "a Swin Transformer"),
    (r"stages\.\d+\.(blocks\.)?\d+\.", "a network in stages (ConvNeXt or kin)"),
    (
        r"((vit|deit|beit)\.)?encoder\.layer\.\d+\.",
        "a ViT of Hugging Face's transformers, not timm's",
    ),
    (r"encoder\.layers\.encoder_layer_\d+\.", "a ViT of torchvision, not timm's"),
    (r"visual\.(transformer|conv1)", "a CLIP model"),
    (r"transformer\.layers\.\d+\.", "a ViT of vit-pytorch, not timm's"),
    (r"score_predictor\.", "a DynamicViT"),
    (r"blocks\.\d+\.attn\.(q_bias|relative_position)", "a BEiT"),
    (r"features\.\d+\.", "a convolutional network"),
)


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """'; did you mean …?' with the nearest names, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=cutoff)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def nearby_file(path: Path) -> str:
    """The same for a file that is not there, from the names beside it."""
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return ""
    return did_you_mean(path.name, names, cutoff=0.6)


def looks_like(keys: Iterable[str]) -> str:
    """', it looks like …' where keys tell a known architecture, or nothing."""
    listed = list(keys)
    for pattern, name in _ARCHITECTURES:
        if any(re.match(pattern, key) for key in listed):
            return f"; it looks like {name}"
    return ""
