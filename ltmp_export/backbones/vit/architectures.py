"""Checkpoints of other architectures, told by keys that only these have, and the way from them.

ViTs under names of other libraries are taken (`libraries`); here are those that are not, and parts
of files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_FILTER = "timm.models.vision_transformer.checkpoint_filter_fn(state_dict, model)"

# Patterns stand at the beginning of a key or after a dot; the first one that is found tells.
_FOREIGN: tuple[tuple[str, str, str], ...] = (
    (r"(swin|swinv2)\.encoder\.layers\.", "a Swin Transformer of Hugging Face's transformers", ""),
    (r"encoder\.layer\.\d+\.attention\.attention\.", "a ViT of Hugging Face's transformers", ""),
    (r"encoder\.layers\.encoder_layer_\d+\.", "a ViT of torchvision", ""),
    (r"layers\.\d+\.ffn\.layers\.0\.0\.", "a ViT of mmpretrain", ""),
    (
        r"(vision_model\.)?encoder\.layers\.\d+\.self_attn\.",
        "a model of images and texts of Hugging Face's transformers",
        "of these CLIP and SigLIP are taken",
    ),
    (r"visual\.(transformer\.|conv1\.|class_embedding$)", "a CLIP model", "its ViTs are taken"),
    (r"beit3\.", "a BEiT-3", f"timm reads it ({_FILTER})"),
    (r"preprocessor\.patchifier\.", "an AIMv2", ""),
    (r"to_patch_embedding\.|transformer\.layers\.\d+\.0\.", "a ViT of vit-pytorch", ""),
    (r"transition\d\.\d+\.", "an HRNet", ""),
    (r"layer[1-4]\.\d+\.(conv|bn)\w*\.", "a ResNet", ""),
    (r"denseblock\d+\.denselayer", "a DenseNet", ""),
    (r"layers\.\d+\.blocks\.\d+\.modulation\.", "a FocalNet", ""),
    (r"layers\.\d+\.blocks\.\d+\.attn\.(cpb_mlp\.|logit_scale$)", "a Swin Transformer V2", ""),
    (r"layers\.\d+\.blocks\.\d+\.attn\.", "a Swin Transformer", ""),
    (r"conv_stem\.", "an EfficientNet, a MobileNet or kin", ""),
    (r"stages\.\d+\.\d+\.transformer\.\d+\.", "a MobileViT of the second version", ""),
    (r"stages\.\d+\.blocks\.\d+\.attn\.\w+\.bn\.", "a LeViT", ""),
    (r"transformers\.\d+\.blocks\.\d+\.", "a PiT", ""),
    (r"blocks_token_only\.", "a CaiT", ""),
    (r"cls_attn_blocks\.", "an XCiT", ""),
    (r"post_network\.", "a VOLO", ""),
    (r"blocks\.\d+\.(mlp_tokens|linear_tokens)\.", "an MLP-Mixer or ResMLP", ""),
    (r"patch_embeds\.\d+\.", "a Twins", ""),
    (r"serial_blocks\d\.", "a CoaT", ""),
    (r"blocks\.\d+\.blocks\.\d+\.\d+\.", "a CrossViT", ""),
    (r"pixel_embed\.", "a TNT", ""),
    (r"blocks\.\d+\.attn\.gating_param$", "a ConViT", ""),
    (r"patch_embed1\.proj\.", "a Visformer", ""),
    (r"levels\.\d+\.transformer_encoder\.", "a NesT", ""),
    (r"stages\.\d+\.blocks\.\d+\.attn\.pool_[qkv]\.", "an MViT", ""),
    (r"stages\.\d+\.blocks\.\d+\.mlp\.dwconv\.", "a PVT", ""),
    (r"stages\.\d+\.blocks\.\d+\.attn_(block|grid)\.", "a MaxViT", ""),
    (r"stages\.\d+\.blocks\.\d+\.(conv1_1x1|pre_norm)\.", "a CoAtNet", ""),
    (r"stages\.\d+\.global_block\.", "a GC ViT", ""),
    (r"stages\.\d+\.blocks\.\d+\.\d+\.attn\.", "a DaViT", ""),
    (r"stages\.\d+\.blocks\.\d+\.gamma_xca$", "an EdgeNeXt", ""),
    (r"stages\.\d+\.blocks\.\d+\.layer_scale1\.", "a PoolFormer or kin", ""),
    (r"stages\.\d+\.blocks\.\d+\.conv_dw\.", "a ConvNeXt", ""),
    (r"stages\.\d+\.(blocks\.)?\d+\.", "a network in stages", ""),
    (r"s\d\.b\d+\.conv\d\.", "a RegNet", ""),
    (r"blocks\.\d+\.proj\.weight$", "a Hiera", ""),
    (r"features\.\d+\.", "a convolutional network", ""),
    (r"num_batches_tracked$", "a network with BatchNorm", ""),
)
# ViTs in timm's manner that are no plain ones.
_KIN: tuple[tuple[str, str], ...] = (
    (r"embeds\.(proj|pos_embed|pos_embed_x|cls_token)(\.|$)", "a NaFlexViT"),
    (r"blocks\.\d+\.attn\.rel_pos_[hw]$", "the image encoder of a SAM"),
    (r"(blocks\.\d+\.attn\.|shared_)rel_pos\.", "timm's VisionTransformerRelPos"),
    (r"blocks\.\d+\.attn\.relative_position", "a BEiT"),
    (r"blocks\.\d+\.(gamma_1|attn\.(q_proj|q_bias))", "a ViT of timm's Eva class"),
)
# Of these, the ones that are not supported as a whole, and why.
APART: Mapping[str, str] = {
    "a NaFlexViT": "it takes patches of images of any size, cut beforehand",
    "the image encoder of a SAM": "it attends in windows, with relative positions by rows and "
    "columns, and gives a map",
    "timm's VisionTransformerRelPos": "only a bias of attention by relative positions places its "
    "tokens",
}


@dataclass(frozen=True)
class Architecture:
    """Another architecture.

    Attributes:
        name: With its article.
        key: The key that tells.
        way: What to do, or nothing.
    """

    name: str
    key: str
    way: str


_LONGEST, _MOST = 200, 5000  # characters of a name, and names, that are looked at
_INDEX = re.compile(r"(?<=\.)\d+(?=\.)")


def telling(keys: Iterable[str]) -> list[str]:
    """Keys to match with patterns: one of those that only numbers tell apart, none endless."""
    found: dict[str, str] = {}
    for key in keys:
        if len(key) <= _LONGEST and len(found) < _MOST:
            found.setdefault(_INDEX.sub("0", key), key)
    return list(found.values())


def foreign(keys: Iterable[str]) -> Architecture | None:
    """The architecture that keys tell, where it is no ViT in timm's manner."""
    listed = telling(keys)
    for pattern, name, way in _FOREIGN:
        if (found := _first(pattern, listed)) is not None:
            return Architecture(name, found[1] + found[2], way)
    return None


def kin(keys: Iterable[str]) -> str:
    """The name of a ViT in timm's manner that is no plain one, or nothing."""
    listed = telling(keys)
    return next((name for pattern, name in _KIN if _first(pattern, listed)), "")


def _first(pattern: str, keys: list[str]) -> re.Match[str] | None:
    """The first key with the pattern in it; groups 1 and 2 are what stands before, and the rest."""
    compiled = re.compile(rf"((?:[^.]+\.)*?)({pattern}.*)")
    return next((match for key in keys if (match := compiled.fullmatch(key))), None)
