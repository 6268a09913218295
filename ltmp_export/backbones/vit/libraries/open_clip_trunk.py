"""The image tower of open_clip where it is a model of timm's (`visual.trunk`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltmp_export.backbones.vit.libraries import open_clip_config
from ltmp_export.backbones.vit.libraries.parts import Taken, Weights, projection, same
from ltmp_export.errors import InputError

NAME = "open_clip"
FIRST = r"visual\.trunk\.patch_embed\.(proj|backbone\.(stem\.)?conv1?)"
KEY = rf"{FIRST}\.weight"

_TRUNK, _HEAD = "visual.trunk.", "visual.head."
_PROJECTION = "proj."


def take(weights: Weights, config: Mapping[str, Any], source: str) -> Taken:
    """The model under timm's names, a projection behind it as its head, as timm takes it.

    Raises:
        InputError: There is another head behind it, or two.
    """
    parts = {
        key.removeprefix(_TRUNK): same(weights, key) for key in weights if key.startswith(_TRUNK)
    }
    behind = [key.removeprefix(_HEAD) for key in weights if key.startswith(_HEAD)]
    other = [key for key in behind if not key.startswith(_PROJECTION)]
    if other or (behind and "head.weight" in parts):
        raise InputError(
            f"{source}: an image tower of open_clip with {_HEAD}{(other or behind)[0]} behind "
            "timm's model; expected one linear projection (proj) at most"
        )
    for key in behind:
        parts[f"head.{key.removeprefix(_PROJECTION)}"] = same(weights, _HEAD + key)
    rest = len(weights) - len(parts)
    left = [f"left out: {rest} tensors for texts and comparison"] if rest else []
    parts, notes = projection(parts, tuple(left))
    said = open_clip_config.words(config, parts, source, own_transformer=False)
    return Taken(parts, said, notes)
