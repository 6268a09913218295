"""From weights to their timm `Eva`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models.eva import Eva
from torch import Tensor

from ltmp_export.backbones.eva.geometry import NAME
from ltmp_export.backbones.positioned.build import made_of


def _more(weights: Mapping[str, Tensor], named: Any, depth: int) -> Mapping[str, Any]:
    """What only this class has: norms by what is there, heads of keys by their shapes."""
    attn = named.blocks[0].attn
    keys = [weights.get(f"blocks.{block}.attn.k_proj.weight") for block in range(depth)]
    grouped = hasattr(attn, "num_kv_heads") and all(key is not None for key in keys)
    heads = tuple(len(key) // attn.head_dim for key in keys if key is not None) if grouped else None
    return {
        "dynamic_img_size": False,
        "use_post_transformer_norm": "norm.weight" in weights,
        "num_kv_heads": heads,
    }


build = made_of(NAME, Eva, _more)
