"""What a client does to a picture before it asks a server: plain data for any language."""

from __future__ import annotations

import json
import math
from typing import Any

from ltmp_export.images.preprocessing import CENTER
from ltmp_export.model_file.model import ExportedModel
from ltmp_export.serving.signature import Signature

FILE = "preprocessing.json"
SCHEMA_VERSION = 1
SQUASH, BORDER = "squash", "border"


def preparation(exported: ExportedModel, given: Signature, mode: str) -> dict[str, Any]:
    """From a decoded picture of 8 bits to the model's input, step by step.

    Args:
        exported: The model.
        given: What it takes and gives.
        mode: Pillow's word for its channels.
    """
    _, height, width = exported.geometry.input_size
    rule = exported.preprocessing
    whole = [math.floor(side / rule.crop_pct) for side in (height, width)]
    square = whole[0] == whole[1]
    resize: dict[str, Any] = {"interpolation": rule.interpolation, "antialias": True}
    if rule.crop_mode == SQUASH:
        resize |= {"height": whole[0], "width": whole[1], "keep_ratio": False}
    elif rule.crop_mode == CENTER and square:
        resize |= {"shorter_side": whole[0], "keep_ratio": True, "rounding": "down"}
    else:
        covers = rule.crop_mode == CENTER
        resize |= {
            "height": whole[0], "width": whole[1], "keep_ratio": True, "rounding": "half to even",
            "fit": "cover" if covers else "contain",
        }  # fmt: skip
    read: list[dict[str, Any]] = [
        {"do": "orient", "by": "EXIF"},
        {"do": "convert", "mode": mode, "transparent_on": None if mode == "RGBA" else "white"},
    ]
    fill = [round(255 * one) if rule.crop_mode == BORDER else 0 for one in rule.mean]
    others: list[dict[str, Any]] = [
        {"do": "resize", **resize},
        {"do": "center_crop", "height": height, "width": width, "fill": fill},
        {"do": "scale", "divide_by": 255},
        {"do": "normalise", "mean": list(rule.mean), "std": list(rule.std)},
        {"do": "transpose", "to": "CHW"},
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "preprocessing",
        "steps": read if exported.front is not None else [*read, *others],
        "input": {
            "name": given.images.name,
            "numbers": given.images.numbers,
            "shape": [given.batch or "batch", *given.images.axes[1:]],
        },
        "outputs": [
            {"name": one.name, "numbers": one.numbers, "shape": list(one.axes)}
            for one in given.outputs
        ],
        "labels": None if exported.label_names is None else list(exported.label_names),
        "assumed": [word for word in rule.assumed if word in vars(rule)],
    }


def text(exported: ExportedModel, given: Signature, mode: str) -> str:
    """The same as JSON."""
    told = preparation(exported, given, mode)
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"
