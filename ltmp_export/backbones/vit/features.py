"""What makes a checkpoint more, or less, than the plain ViT that is supported, by names and shapes.

All of it is told at once: who reads one feature per attempt gives up.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from ltmp_export.backbones.vit import architectures, kinds, vit_pytorch_keys
from ltmp_export.errors import InputError

MERGE = (
    "merge the adapter into the model's weights first (peft: model.merge_and_unload()), "
    "then save their state_dict"
)
# What plain ViTs may hold that nothing uses at inference, and why.
UNUSED: Mapping[str, str] = {
    r"mask_token": "which only pretraining uses",
    r"decoder_((embed|blocks|norm|pred)\..*|pos_embed)": "a decoder, which only pretraining uses",
}

_ADAPTER = re.compile(
    r"(^|\.)(lora_(A|B|embedding_[AB]|magnitude_vector)|ia3_l|hada_w[12]_[ab]|oft_r)(\.|$)"
)
# Keys of features that are not supported. Patterns match whole keys, of the first block where the
# feature is of blocks; the first key that matches is shown.
_B = r"blocks\.\d+\."
_KEYS: tuple[tuple[str, str], ...] = (
    (r"(embeds\.)?register_tokens|embeds\.reg_token", "register tokens under other names"),
    (
        r"attn_pool\.(?!(latent|(q|kv|proj|norm|q_norm|k_norm|mlp\.fc[12])\.(weight|bias))$).*",
        "attention pooling of another kind",
    ),
    (r"pre_logits\..*", "a layer between pooling and classifier"),
    (r"(embeds\.pos_embed_[xy]|pos_embed_[hw])", "a position embedding by rows and columns"),
    (r"patch_embed\.(conv\w*|proj\.\d+|stem)\..*", "a convolutional stem"),
    (r"(rope|rope_embed)\..*|" + _B + r"attn\.rope\..*", "rotary position embedding"),
    (_B + r"attn\.rel(ative)?_pos.*|(shared_)?rel_pos.*", "relative position bias"),
    (_B + r"attn\.gate\w*\..*", "gated attention"),
    (_B + r"attn\.[qkv]_proj\..*", "projections of q, k and v apart"),
    (_B + r"attn\.[qkv]_bias", "biases of q and v alone"),
    (_B + r"attn\.proj_[lw]\..*", "talking heads"),
    (_B + r"(attns|ffns)\..*", "several attentions and MLPs side by side"),
    (_B + r"mlp\.(w12|w3|gate_proj)\..*", "SwiGLU under other names than timm's"),
    (_B + r"(mlp\.)?(experts|router|moe)\..*", "mixture of experts"),
    (_B + r"gamma_[12]|" + _B + r"ls[12]", "layer scale under other names than ls1.gamma"),
    (r"blocks\.\d+\.\d+\..*", "blocks in chunks"),
)
_VIT = re.compile(r"blocks\.\d+\.(\d+\.)?(norm1|attn|in_norm|gamma_1)(\.|$).*")


class Shaped(Protocol):
    """A tensor, read or not."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""


def require_plain(
    source: str,
    weights: Mapping[str, Shaped],
    beside: Mapping[str, object] | None = None,
    more: Iterable[str] = (),
) -> None:
    """Check that these are the weights of a ViT that is supported, as far as names tell.

    Args:
        source: Where they come from, for messages.
        weights: By timm's names, without those of a method.
        beside: What else the file holds.
        more: Features that are not supported and that names do not tell.

    Raises:
        InputError: They are an adapter's, of another architecture, or of a ViT with features that
            are not supported; all of these are named.
    """
    names = architectures.telling((*weights, *(beside or {})))
    if (adapter := next(filter(_ADAPTER.search, names), None)) is not None:
        raise InputError(f"{source} holds an adapter (LoRA or kin: {adapter}); {MERGE}")
    if vit_pytorch_keys.NORM in weights:  # all its keys are there and known
        return
    vit = any(map(_VIT.fullmatch, names))
    inner = (key for key in weights if not (vit and key.startswith("patch_embed.")))
    if (other := architectures.foreign(inner)) is not None:
        raise InputError(
            f"{source}: not a plain timm VisionTransformer: it looks like {other.name} "
            f"({other.key}); {other.way or _EXPECTED}"
        )
    like = architectures.kin(weights)
    if like in architectures.APART:
        raise InputError(
            f"{source}: not a plain timm VisionTransformer: it looks like {like}; "
            f"{architectures.APART[like]}, which is not supported"
        )
    missing = [*more, *unsupported(weights)]
    if not missing:
        return
    if not vit:
        first = ", ".join(key[:60] for key in list(weights)[:4])
        raise InputError(
            f"{source}: not a plain timm VisionTransformer with a classifier: "
            f"{', '.join(missing)} (the first keys: {first})"
        )
    raise InputError(
        f"{source} is a ViT with features that are not supported: {', '.join(missing)}"
        f"{_way(like) if like else f'; {_EXPECTED}'}"
    )


def _way(like: str) -> str:
    """What to do about a ViT in timm's manner that its name tells."""
    example = "beit_base_patch16_224" if "BEiT" in like else "vit_small_patch16_rope_ape_224"
    return (
        f"; it looks like {like}, of which its name tells what weights do not: state its name of "
        f"timm's with --model, like {example}"
    )


_EXPECTED = "expected a plain ViT with a classifier, like timm's deit_small_patch16_224"


def unsupported(weights: Mapping[str, Shaped]) -> Iterator[str]:
    """Each feature with the key that shows it."""
    if "dist_token" in weights and "reg_token" in weights:
        yield "register tokens beside a distillation token (reg_token)"
    names = architectures.telling(weights)
    for pattern, name in _KEYS:
        compiled = re.compile(pattern)
        if (key := next(filter(compiled.fullmatch, names), None)) is not None:
            yield f"{name} ({key})"
    needed = () if kinds.has_stem(weights) else ("patch_embed.proj.weight",)
    if not needed and not any(map(kinds.FIRST.fullmatch, weights)):
        yield "the first convolution missing in front of patch_embed (patch_embed.backbone)"
    for key in (*needed, f"blocks.0.{kinds.layers(weights)[0]}.weight"):
        if key not in weights and not (key[0] == "p" and f"embeds.{key}" in weights):
            yield f"{key} missing"


def _shape(weights: Mapping[str, Shaped], leaf: str) -> tuple[int, ...]:
    found = weights.get(f"blocks.0.{leaf}")
    return () if found is None else tuple(found.shape)


_PLAIN = re.compile(
    r"(patch_embed\.backbone\..*|attn_pool\.latent|cls_token|dist_token|reg_token|pos_embed|(patch_embed\.(proj|coarse|norm_pre|norm)|norm_pre|norm|fc_norm"
    r"|attn_pool\.(q|kv|proj|norm|q_norm|k_norm|mlp\.fc[12])"
    r"|head|head_dist)\.(weight|bias)|blocks\.\d+\.((norm[12]|attn\.(qkv|proj|norm|q_norm|k_norm|sub_norm)"
    r"|in_norm|in_proj|out_proj|attn_out_proj|mlp_out_proj|q_norm|k_norm|sub_norm"
    r"|mlp\.(fc1|fc1_g|fc1_x|fc2|w[012]|norm))\.(weight|bias)|(attn\.)?lambda_([qk][12]|[ab])"
    r"|mlp_bias|ls[12]?\.gamma))"
)
_OF_BLOCK = re.compile(r"blocks\.(0|[1-9][0-9]{0,5})\.(.*)")


def block_count(weights: Iterable[str]) -> int:
    """Number of blocks; the indices must run from 0 without a gap.

    Raises:
        InputError: A block is missing.
    """
    found = {int(match[1]) for key in weights if (match := _OF_BLOCK.fullmatch(key))}
    if found and max(found) >= len(found):
        first = next(index for index in range(len(found)) if index not in found)
        raise InputError(f"block {first} has no weights, though block {max(found)} has")
    return len(found)


def require_complete(source: str, name: str | None, weights: Mapping[str, Shaped]) -> None:
    """Check that a plain ViT has in each block what the others have, and nothing of other names.

    Args:
        source: Where the weights come from, for messages.
        name: What the model is called, if it is.
        weights: By timm's names, without those of a method.

    Raises:
        InputError: It has not.
    """
    depth = block_count(weights)
    leaves = Counter(m[2] for key in weights if (m := _OF_BLOCK.fullmatch(key)))
    norms = ("in_norm",) if kinds.side_by_side(weights) else ("norm1", "norm2")
    whole = {f"{leaf}.weight" for leaf in (*norms, *kinds.layers(weights))}
    whole |= set() if kinds.rms(weights) else {f"{norm}.bias" for norm in norms}
    wanted = {*whole, *(leaf for leaf, count in leaves.items() if 2 * count > depth)}
    named = (f"blocks.{block}.{leaf}" for block in range(depth) for leaf in wanted)
    missing = sorted(key for key in named if key not in weights)
    unexpected = sorted(key for key in weights if not _PLAIN.fullmatch(key))
    require_none(source, name, missing=missing, unexpected=unexpected)


def require_none(source: str, name: str | None, **wrong: list[str]) -> None:
    """Check that there are no keys of the kinds that are wrong.

    Raises:
        InputError: There are.
    """
    parts = [
        f"{len(keys)} {word} ({'; '.join(keys[:3])}{'; …' if len(keys) > 3 else ''})"
        for word, keys in wrong.items()
        if keys
    ]
    if parts:
        raise InputError(
            f"{source}: the weights are not those of {name or 'a plain ViT'}: {', '.join(parts)}"
        )
