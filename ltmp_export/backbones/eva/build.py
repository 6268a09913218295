"""From weights to their timm `Eva`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models.eva import Eva
from torch import Tensor

from ltmp_export.backbones.eva.geometry import NAME
from ltmp_export.backbones.positioned.build import made_of


def _more(weights: Mapping[str, Tensor], named: Any, depth: int, heads: int) -> Mapping[str, Any]:
    """What only this class has: norms by what is there, heads of keys by their shapes."""
    layers = [
        [weights.get(f"blocks.{block}.attn.{part}_proj.weight") for part in "qk"]
        for block in range(depth)
    ]
    grouped = None
    if hasattr(named.blocks[0].attn, "num_kv_heads"):
        grouped = tuple(
            len(keys) * heads // len(queries)
            for queries, keys in layers
            if queries is not None and keys is not None
        )
    return {
        "dynamic_img_size": False,
        "qkv_bias": any(
            f"blocks.0.attn.{name}" in weights for name in ("q_bias", "qkv.bias", "q_proj.bias")
        ),
        "use_post_transformer_norm": "norm.weight" in weights,
        "num_kv_heads": grouped if grouped and len(grouped) == depth else None,
    }


build = made_of(NAME, Eva, _more)
