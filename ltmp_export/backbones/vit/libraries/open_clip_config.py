"""What `open_clip_config.json` says of an image tower, in timm's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltmp_export.backbones.vit.libraries.parts import Part
from ltmp_export.backbones.vit.libraries.stated_sizes import Configuration, Keys, require_same
from ltmp_export.statements.gather import Said

FILE = "open_clip_config.json"
_CODE = "the code of open_clip"
_POOLS = {"tok": "token", "avg": "avg"}
_DEFAULTS = {"width": 768, "layers": 12, "head_width": 64, "patch_size": 16, "image_size": 224}
_KEYS = Keys("width", "layers")


def timm_name(config: Mapping[str, Any]) -> Any:
    """The name of timm's model that is the tower; None where it is open_clip's own."""
    model = config.get("model_cfg")
    vision = model.get("vision_cfg") if isinstance(model, Mapping) else None
    return vision.get("timm_model_name") if isinstance(vision, Mapping) else None


def words(
    config: Mapping[str, Any],
    parts: Mapping[str, Part],
    source: str,
    *,
    own_transformer: bool,
) -> dict[str, Said]:
    """Image size, and of open_clip's own transformer heads, activation, epsilon and pooling.

    Args:
        config: Of open_clip, or of something else, or none.
        parts: timm's tensors.
        source: Where the weights come from, for messages.
        own_transformer: Whether it is its own, or a model of timm's.

    Raises:
        InputError: It says what is no number, or is of a tower of another size.
    """
    found = {"norm_eps": Said(1e-5, _CODE)} if own_transformer else {}
    model = config.get("model_cfg")
    vision = model.get("vision_cfg") if isinstance(model, Mapping) else None
    if not isinstance(model, Mapping) or not isinstance(vision, Mapping):
        return found
    tower = Configuration(vision, FILE, source, _DEFAULTS)
    place = f"{FILE}: "
    found["img_size"] = Said(tower.sides("image_size"), f"{place}image_size")
    if not own_transformer:
        pool = vision.get("timm_pool")
        return found | ({"gp": Said(str(pool), f"{place}timm_pool")} if pool else {})
    require_same(tower, _KEYS, parts)
    if pooling := vision.get("attentional_pool"):
        tower.require("attentional_pool", str(pooling).lower(), "none of its (attn_pool)")
    width, head = tower.whole("width"), tower.whole("head_width")
    if head > width:
        tower.require("head_width", head, f"a width of {width}")
    found["num_heads"] = Said(width // head, f"{place}head_width {head}")
    found["act"] = _activation(model, vision)
    norm = vision.get("norm_kwargs")
    if isinstance(norm, Mapping) and norm.get("eps") is not None:
        told = Configuration(norm, f"{FILE}: norm_kwargs", source, {})
        found["norm_eps"] = Said(told.epsilon("eps"), f"{place}norm_kwargs")
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
