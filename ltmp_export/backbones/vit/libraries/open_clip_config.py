"""What `open_clip_config.json` says of an image tower, in timm's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltmp_export.plan.geometry import POOLS
from ltmp_export.statements.gather import Said

FILE = "open_clip_config.json"
_CODE = "the code of open_clip"
_POOLS = {"tok": "token", "avg": "avg"}


def timm_name(config: Mapping[str, Any]) -> Any:
    """The name of timm's model that is the tower; None where it is open_clip's own."""
    model = config.get("model_cfg")
    vision = model.get("vision_cfg") if isinstance(model, Mapping) else None
    return vision.get("timm_model_name") if isinstance(vision, Mapping) else None


def words(config: Mapping[str, Any], *, own_transformer: bool) -> dict[str, Said]:
    """Image size, and of open_clip's own transformer heads, activation, epsilon and pooling.

    Args:
        config: Of open_clip, or of something else, or none.
        own_transformer: Whether it is its own, or a model of timm's.
    """
    found = {"norm_eps": Said(1e-5, _CODE)} if own_transformer else {}
    model = config.get("model_cfg")
    vision = model.get("vision_cfg") if isinstance(model, Mapping) else None
    if not isinstance(model, Mapping) or not isinstance(vision, Mapping):
        return found
    place = f"{FILE}: "
    found["img_size"] = Said(vision.get("image_size", 224), f"{place}image_size")
    if not own_transformer:
        pool = vision.get("timm_pool")
        return found | ({"gp": Said(pool, f"{place}timm_pool")} if pool in POOLS else {})
    width, head = vision.get("width", 768), vision.get("head_width", 64)
    if type(width) is int and type(head) is int and head > 0:
        found["num_heads"] = Said(width // head, f"{place}head_width {head}")
    quick = bool(model.get("quick_gelu", False))
    found["act"] = Said(
        "quick_gelu" if quick else "gelu", f"{place}quick_gelu {str(quick).lower()}"
    )
    eps = vision.get("norm_kwargs") or {}
    if isinstance(eps, Mapping) and type(eps.get("eps")) is float:
        found["norm_eps"] = Said(eps["eps"], f"{place}norm_kwargs")
    pool = str(vision.get("pool_type", "tok"))
    found["gp"] = Said(_POOLS.get(pool, pool), f"{place}pool_type")
    if vision.get("final_ln_after_pool") and pool == "avg":
        found["normed_average"] = Said(True, f"{place}final_ln_after_pool")
    return found
