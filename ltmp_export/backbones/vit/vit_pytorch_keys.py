"""Names of weights in vit-pytorch's PatchMerger (`vit_with_patch_merger.ViT`), and timm's for them.

Two writings are known, told apart by their keys:

    since 1.0   layers.i.0.to_qkv      layers.i.1.net.1       transformer.norm, mlp_head.1
    before      layers.i.0.fn.to_qkv   layers.i.1.fn.net.0    mlp_head.1 (a norm), mlp_head.2
"""

from __future__ import annotations

import re
from collections.abc import Collection

from ltmp_export.errors import InputError

NORM_EPS = 1e-5
SAYS = "the code of vit-pytorch"  # where such a model's facts come from
NORM = "patch_embed.norm_pre.weight"  # what tells such a model once it has timm's names
QUERIES = "transformer.patch_merger.queries"

_EMBEDDING = "to_patch_embedding.1.weight"
_INDEX = re.compile(r"transformer\.layers\.(0|[1-9][0-9]{0,5})\.")

# Each module's name in timm and the rank of its weight.
_Modules = dict[str, tuple[str, int]]
_OUTER: _Modules = {
    "to_patch_embedding.1": ("patch_embed.norm_pre", 1),
    "to_patch_embedding.2": ("patch_embed.proj", 2),
    "to_patch_embedding.3": ("patch_embed.norm", 1),
    "transformer.patch_merger.norm": ("cluster_layers.0.norm", 1),
}
_HEAD: _Modules = {"transformer.norm": ("norm", 1), "mlp_head.1": ("head", 2)}
_OLDER_HEAD: _Modules = {"mlp_head.1": ("fc_norm", 1), "mlp_head.2": ("head", 2)}
_LAYER: _Modules = {
    "0.norm": ("norm1", 1),
    "0.to_qkv": ("attn.qkv", 2),
    "0.to_out.0": ("attn.proj", 2),
    "1.net.0": ("norm2", 1),
    "1.net.1": ("mlp.fc1", 2),
    "1.net.4": ("mlp.fc2", 2),
}
_OLDER_LAYER: _Modules = {
    "0.norm": ("norm1", 1),
    "0.fn.to_qkv": ("attn.qkv", 2),
    "0.fn.to_out.0": ("attn.proj", 2),
    "1.norm": ("norm2", 1),
    "1.fn.net.0": ("mlp.fc1", 2),
    "1.fn.net.3": ("mlp.fc2", 2),
}


def is_vit_pytorch(keys: Collection[str]) -> bool:
    """Whether these are names of a ViT of vit-pytorch, by its embedding."""
    return _EMBEDDING in keys


def has_one_head(keys: Collection[str]) -> bool:
    """Whether there is no projection after attention: one head, as wide as the tokens."""
    return not any(".to_out." in key for key in keys)


def expected(keys: Collection[str], source: str) -> dict[str, tuple[str, int]]:
    """For each key of such a model, timm's name and the rank.

    Raises:
        InputError: Keys are missing or unknown.
    """
    modules = _OUTER | (_OLDER_HEAD if "mlp_head.2.weight" in keys else _HEAD)
    layer = _OLDER_LAYER if any(".fn." in key for key in keys) else _LAYER
    for index in range(_depth(keys, source)):
        for module, (name, rank) in layer.items():
            if name == "attn.proj" and has_one_head(keys):
                continue
            modules[f"transformer.layers.{index}.{module}"] = (f"blocks.{index}.{name}", rank)
    named = {"pos_embedding": ("pos_embed", 3), QUERIES: ("cluster_layers.0.queries", 2)}
    for module, (name, rank) in modules.items():
        named[f"{module}.weight"] = (f"{name}.weight", rank)
        if not name.endswith("attn.qkv"):
            named[f"{module}.bias"] = (f"{name}.bias", 1)
    _require_keys(keys, named, source)
    return named


def _depth(keys: Collection[str], source: str) -> int:
    found = {int(match[1]) for key in keys if (match := _INDEX.match(key))}
    gap = next((index for index in range(len(found)) if index not in found), len(found))
    if not found or max(found) > gap:
        raise InputError(f"{source}: transformer.layers.{gap} has no weights")
    return len(found)


def _require_keys(weights: Collection[str], expected: Collection[str], source: str) -> None:
    missing = [key for key in expected if key not in weights]
    unknown = [key for key in weights if key not in expected]
    parts = [
        f"{len(keys)} {word} ({'; '.join(keys[:3])}{'; …' if len(keys) > 3 else ''})"
        for word, keys in (("missing", missing), ("unexpected", unknown))
        if keys
    ]
    if parts:
        raise InputError(
            f"{source} has names of vit-pytorch, but only its PatchMerger is supported "
            f"(vit_with_patch_merger.ViT): {', '.join(parts)}"
        )
