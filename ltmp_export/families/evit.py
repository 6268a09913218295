"""Keep the tokens that the class token attends to, fuse the rest, at a few blocks (EViT).

Liang et al., "Not All Patches are What You Need: Expediting Vision Transformers via Token
Reorganizations", ICLR 2022, arXiv 2202.07800; METHOD §1. As the official training script states it
in the arguments that it saves.
"""

import ast
from collections.abc import Mapping
from typing import Any

from ltmp_export.plan.step import Step
from ltmp_export.steps.fuse.step import Fuse

ARGS = ("base_keep_rate", "drop_loc", "fuse_token")


def from_args(args: Mapping[str, Any]) -> dict[int, tuple[Step, ...]]:
    """The steps of the blocks that take one: the same share everywhere.

    Raises:
        ValueError: The arguments are not what the script takes.
    """
    rate, places, fused = (args[name] for name in ARGS)
    places = ast.literal_eval(places) if isinstance(places, str) else places
    if type(rate) not in (int, float) or not 0.0 < rate <= 1.0 or type(fused) is not bool:
        raise ValueError(f"base_keep_rate {rate!r}, fuse_token {fused!r}")
    if not isinstance(places, (tuple, list)) or not all(type(at) is int for at in places):
        raise ValueError(f"drop_loc {places!r}")
    return {at: (Fuse(float(rate), fused),) for at in places}
