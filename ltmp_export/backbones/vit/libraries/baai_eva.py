"""BAAI's EVA-02 and EVA-CLIP (baaivision/EVA), of timm's class `Eva`; its name has to be stated."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ltmp_export.backbones.vit.libraries.parts import Part, Taken, Weights, same

NAME = "BAAI's EVA"
KEY = r"blocks\.\d+\.(mlp\.ffn_ln|attn\.inner_attn_ln)\.weight"
FIRST = r"patch_embed\.proj"

_NAMES = {
    ".mlp.ffn_ln.": ".mlp.norm.",
    ".attn.inner_attn_ln.": ".attn.norm.",
    ".mlp.w12.": ".mlp.fc1.",
    ".mlp.w1.": ".mlp.fc1_g.",
    ".mlp.w2.": ".mlp.fc1_x.",
    ".mlp.w3.": ".mlp.fc2.",
}
_APART = {".q_bias": ".q_proj.bias", ".v_bias": ".v_proj.bias"}
_PRETRAINING = "lm_head."
_TURNS = re.compile(r"(.*\.)?rope\.freqs_\w+")  # cosines and sines


def tells(keys: Iterable[str]) -> bool:
    """Whether it is one without norms inside: a gated MLP and biases of q and v alone."""
    listed = [*keys]
    return all(
        any(re.fullmatch(rf"(.*\.)?blocks\.\d+\.{own}", key) for key in listed)
        for own in (r"mlp\.w1(2)?\.weight", r"attn\.q_bias")
    )


def take(weights: Weights, config: Mapping[str, Any], source: str) -> Taken:
    """The model under timm's names; of pretraining the last norm stands behind the mean, as timm's.

    Args:
        weights: By the names in the file.
        config: None is known of.
        source: Where the weights come from.
    """
    apart = any(".attn.q_proj." in key for key in weights)
    pretraining = any(key.startswith(_PRETRAINING) for key in weights)
    parts: dict[str, Part] = {}
    left: list[str] = []
    for key in weights:
        if _TURNS.fullmatch(key) or key.startswith(_PRETRAINING):
            left.append(key)
            continue
        name = key
        for theirs, ours in _NAMES.items():
            name = name.replace(theirs, ours)
        for theirs, ours in _APART.items() if apart else ():
            name = name.replace(theirs, ours)
        if pretraining and name.startswith("norm."):
            name = f"fc_{name}"
        parts[name] = same(weights, key)
    more = f" and {len(left) - 1} more" if len(left) > 1 else ""
    notes = [f"left out: {left[0]}{more}, which are computed anew or not used"] if left else []
    return Taken(parts, {}, tuple(notes))
