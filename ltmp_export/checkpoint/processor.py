"""How other libraries prepare images, in timm's words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ltmp_export.backbones.vit.libraries import open_clip_config
from ltmp_export.checkpoint.beside import PROCESSOR, Beside
from ltmp_export.images.preprocessing import CENTER
from ltmp_export.plan.geometry import Size
from ltmp_export.statements.gather import Said

SIZE = "processor_size"  # (height, width) of the images that it makes
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's numbers
_SQUASH = "squash"
_SQUARE = ("vit", "deit", "siglip")  # whose one number for a size is both sides
_CONVNEXT_WHOLE = 384  # from this size on its processor cuts nothing off
_PIXELS = 255.0


def words(found: Beside) -> dict[str, Said]:
    """What the configurations beside a file say."""
    told = found.open_clip.get("preprocess_cfg")
    if not isinstance(told, Mapping):
        listed = _hugging_face(found) if found.processor else {}
        return {key: Said(value, f"{PROCESSOR}: {k}") for key, (value, k) in listed.items()}
    place = f"{open_clip_config.FILE}: "
    named = {"mean": "mean", "std": "std", "interpolation": "interpolation"}
    values = {key: Said(told[k], place + k) for key, k in named.items() if k in told}
    mode = told.get("resize_mode", "shortest")
    modes = {"shortest": CENTER, _SQUASH: _SQUASH}
    if mode in modes:
        values["crop_mode"] = Said(modes[mode], f"{place}resize_mode")
        values["crop_pct"] = Said(1.0, f"{place}resize_mode")
    return values


_Told = dict[str, tuple[Any, str]]


def _hugging_face(found: Beside) -> _Told:
    """Values by timm's word, each with the key that says it."""
    told = found.processor
    values = _normalisation(told)
    index = told.get("resample")
    if type(index) is int and 0 <= index < len(_FILTERS):
        values["interpolation"] = (_FILTERS[index], "resample")
    return values | _crop(told, str(found.config.get("model_type", "")))


def _normalisation(told: Mapping[str, Any]) -> _Told:
    """Mean and deviation of pixels in [0, 1], which transformers states after its own scaling."""
    if told.get("do_normalize") is False:
        return {"mean": ((0.0,), "do_normalize"), "std": ((1.0,), "do_normalize")}
    factor = 1.0 if told.get("do_rescale") is False else told.get("rescale_factor", 1 / _PIXELS)
    scale = factor * _PIXELS if isinstance(factor, (int, float)) and factor > 0 else 1.0
    values: _Told = {}
    for key, name in (("mean", "image_mean"), ("std", "image_std")):
        listed = told.get(name)
        if isinstance(listed, list) and all(type(one) in (int, float) for one in listed):
            exact = abs(scale - 1.0) < 1e-9
            values[key] = (listed if exact else [one / scale for one in listed], name)
    return values


def _crop(told: Mapping[str, Any], kind: str) -> _Told:
    """Resize and crop, where timm has the same."""
    size = told.get("size")
    cropped = _sides(told.get("crop_size")) if told.get("do_center_crop") is True else None
    edge = size.get("shortest_edge") if isinstance(size, Mapping) else None
    processor = told.get("image_processor_type", told.get("feature_extractor_type"))
    square = str(processor or kind).lower().startswith(_SQUARE)
    if type(size) is int:
        edge, size = (None, size) if square else (size, None)
    if type(edge) is int and type(told.get("crop_pct")) is float:  # ConvNext's
        whole = edge >= _CONVNEXT_WHOLE
        share = 1.0 if whole else told["crop_pct"]
        mode = _SQUASH if whole else CENTER
        return _cropping(share, "crop_pct", mode, (edge, edge))
    if type(edge) is int:
        if cropped is None:  # images of any shape
            return {}
        return _cropping(_share(min(cropped), edge), "size", CENTER, cropped)
    sides = _sides(size)
    if sides is None:
        return {}
    if cropped is None:
        return _cropping(1.0, "size", _SQUASH, sides)
    return _cropping(_share(cropped[0], sides[0]), "size", _SQUASH, cropped)


def _cropping(share: float, key: str, mode: str, size: Size) -> _Told:
    return {"crop_pct": (share, key), "crop_mode": (mode, key), SIZE: (size, key)}


def _share(side: int, resized: int) -> float:
    """The share of the resized side that is kept, which gives that side when divided by."""
    share = side / resized
    return share if math.floor(side / share) == resized else math.nextafter(share, 0.0)


def _sides(value: Any) -> Size | None:
    """(height, width), of both or of one number for both."""
    if isinstance(value, Mapping):
        value = (value.get("height"), value.get("width"))
    elif type(value) is int:
        value = (value, value)
    if isinstance(value, tuple) and all(type(side) is int and side > 0 for side in value):
        return value[0], value[1]
    return None
