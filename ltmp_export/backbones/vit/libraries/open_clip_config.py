"""What `open_clip_config.json` says of an image tower, in timm's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltmp_export.errors import InputError
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
        return found | ({"gp": Said(str(pool), f"{place}timm_pool")} if pool else {})
    width, head = vision.get("width", 768), vision.get("head_width", 64)
    if type(width) is int and type(head) is int and head > 0:
        found["num_heads"] = Said(width // head, f"{place}head_width {head}")
    found["act"] = _activation(model, vision)
    eps = vision.get("norm_kwargs") or {}
    if isinstance(eps, Mapping) and type(eps.get("eps")) is float:
        found["norm_eps"] = Said(eps["eps"], f"{place}norm_kwargs")
    pool = str(vision.get("pool_type", "tok"))
    found["gp"] = Said(_POOLS.get(pool, pool), f"{place}pool_type")
    if vision.get("final_ln_after_pool") and pool == "avg":
        found["normed_average"] = Said(True, f"{place}final_ln_after_pool")
    return found


def _activation(model: Mapping[str, Any], vision: Mapping[str, Any]) -> Said:
    """QuickGELU, or torch's GELU, which takes arguments."""
    quick = bool(model.get("quick_gelu", False))
    act, kwargs = "quick_gelu" if quick else "gelu", vision.get("act_kwargs")
    if not kwargs:
        return Said(act, f"{FILE}: quick_gelu {str(quick).lower()}")
    if not quick and kwargs == {"approximate": "tanh"}:
        act = "gelu_tanh"
    elif quick or kwargs != {"approximate": "none"}:
        act = f"{act} of {kwargs!s:.40}"  # which is refused by that name
    return Said(act, f"{FILE}: act_kwargs")


def require_same_size(config: Mapping[str, Any], width: int, depth: int, source: str) -> None:
    """Check that a configuration is of a tower of that size.

    Raises:
        InputError: It is of another.
    """
    model = config.get("model_cfg")
    vision = model.get("vision_cfg") if isinstance(model, Mapping) else None
    told = vision if isinstance(vision, Mapping) else {}
    for key, own in (("width", width), ("layers", depth)):
        if told.get(key, own) != own:
            raise InputError(
                f"{source}: {FILE} beside it says {key} {told[key]!s:.20}, its weights have {own}; "
                "put the configuration of this model there, or give the file its own folder"
            )
