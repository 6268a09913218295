"""What kinds of layers a ViT of timm's has, by the names and shapes of its weights."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

from ltmp_export.plan import mlps, parallel

if TYPE_CHECKING:
    from ltmp_export.backbones.vit.features import Shaped

_MLP = "blocks.0.mlp"
IN_PROJ = "blocks.0.in_proj.weight"  # of blocks whose attention and MLP run side by side

LATENT = "attn_pool.latent"  # the query of attention pooling
STEM = "patch_embed.backbone."
FIRST = re.compile(r"patch_embed\.backbone\.(stem\.|0\.)?conv1?\.weight")
_CONVOLUTION = re.compile(r"patch_embed\.backbone\.(.*\.)?(conv\w*|proj|expand)\.weight")
_STAGE = re.compile(r"patch_embed\.backbone\.stages\.(\d)\.(\d+)\.conv3_1x1\.weight")
COUNTER = r"patch_embed\.backbone\..*\.num_batches_tracked"  # of training alone


def has_stem(keys: Collection[str]) -> bool:
    """Whether convolutions stand in front of the patch embedding."""
    return any(key.startswith(STEM) for key in keys)


def stem_ranks(keys: Collection[str]) -> dict[str, int]:
    """Dimensions of the convolutions in front of the patch embedding, by their names."""
    return dict.fromkeys(filter(_CONVOLUTION.fullmatch, keys), 4)


def embedding(weights: Mapping[str, Shaped]) -> tuple[int, int, int, int]:
    """Channels of a token and of an image, height and width of a patch: of a stem's map in cells.

    KeyError: No weight tells.
    """
    proj = weights.get("patch_embed.proj.weight")
    if not has_stem(weights):
        width, channels, height, across = weights["patch_embed.proj.weight"].shape
        return width, channels, height, across
    first = next(filter(FIRST.fullmatch, weights), "the stem's first convolution")
    height, across = (1, 1) if proj is None else proj.shape[2:]
    norm = f"blocks.0.{first_norm(weights)}.weight"
    return weights[norm].shape[0], weights[first].shape[1], height, across


class Stages(NamedTuple):
    """ViTamin's stem, which its weights tell whole.

    Attributes:
        first: Channels in front of the stages.
        widths: Channels behind the first stage, the second, and all.
        depths: Bottlenecks of each stage.
    """

    first: int
    widths: tuple[int, int, int]
    depths: tuple[int, int]

    @property
    def cells(self) -> tuple[int, int]:
        """(height, width) in pixels of a cell of the map that it makes."""
        return 16, 16


def stages(weights: Mapping[str, Shaped]) -> Stages | None:
    """What the stem is, where it is ViTamin's; None where it is another, or there is none."""
    names = (f"{STEM}stem.conv1.weight", f"{STEM}pool.proj.weight")
    found = [match for key in weights if (match := _STAGE.fullmatch(key))]
    if any(name not in weights for name in names) or {m[1] for m in found} != {"0", "1"}:
        return None
    one, two = (weights[next(m[0] for m in found if m[1] == stage)].shape[0] for stage in "01")
    first, last = (weights[name].shape[0] for name in names)
    depths = [sum(m[1] == stage for m in found) for stage in "01"]
    return Stages(first, (one, two, last), (depths[0], depths[1]))


def side_by_side(keys: Collection[str]) -> str:
    """How blocks have attention and MLP side by side, one of `plan.parallel.KINDS`."""
    if IN_PROJ not in keys:
        return ""
    return parallel.JOINED if "blocks.0.out_proj.weight" in keys else parallel.APART


def attention(keys: Collection[str]) -> str:
    """The path of what attends in block 0."""
    return parallel.attention("blocks.0", side_by_side(keys))


def first_norm(keys: Collection[str]) -> str:
    """The name in a block of its first norm."""
    return "in_norm" if side_by_side(keys) else "norm1"


def rms(keys: Collection[str]) -> bool:
    """Whether norms have no biases, as RMSNorm has none."""
    norm = f"blocks.0.{first_norm(keys)}"
    return f"{norm}.weight" in keys and f"{norm}.bias" not in keys


def attention_width(weights: Mapping[str, Shaped]) -> int:
    """Channels of all heads together."""
    if side_by_side(weights):
        return int(weights[IN_PROJ].shape[1])
    return int(weights["blocks.0.attn.qkv.weight"].shape[0]) // 3


def mlp_width(weights: Mapping[str, Shaped], place: int) -> int:
    """Channels that an MLP's first layer gives (0), or that its last is given (-1)."""
    if side_by_side(weights):
        rows, width = weights[IN_PROJ].shape
        return rows - 3 * width
    weight = weights[f"{_MLP}.{mlp_layers(mlp(weights))[place]}.weight"]
    return weight.shape[0 if place == 0 else 1]


def layers(weights: Mapping[str, Shaped]) -> tuple[str, ...]:
    """The leaves of the linear layers of a block, without which it is none."""
    if kind := side_by_side(weights):
        return tuple(layer.leaf for layer in parallel.layers(kind, 1, 1))
    return ("attn.qkv", "attn.proj", *(f"mlp.{leaf}" for leaf in mlp_layers(mlp(weights))))


def mlp(weights: Mapping[str, Shaped]) -> str:
    """The kind of the MLPs, one of `plan.mlps.KINDS`; the gate of a packed one may stand behind."""
    if f"{_MLP}.fc1_g.weight" in weights:
        return mlps.SPLIT
    if f"{_MLP}.w0.weight" in weights:
        return mlps.NORMED
    first, second = (weights.get(f"{_MLP}.{leaf}.weight") for leaf in ("fc1", "fc2"))
    if first is None or second is None or not len(first.shape) == len(second.shape) == 2:
        return mlps.PLAIN
    packed = second.shape[1] and first.shape[0] == 2 * second.shape[1]
    return mlps.PACKED if packed else mlps.PLAIN


def mlp_layers(kind: str) -> tuple[str, ...]:
    """The leaves of the linear layers of an MLP."""
    return tuple(layer.leaf for layer in mlps.layers(kind, 1, 1))


def siglip(weights: Mapping[str, Shaped]) -> bool:
    """Whether it may be a SigLIP: attention pooling, or the mean of normalised patches alone."""
    tokens = any(key in weights for key in ("cls_token", "reg_token", "fc_norm.weight"))
    return LATENT in weights or not (tokens or rms(weights))


def norms_behind(weights: Mapping[str, Shaped]) -> dict[str, bool]:
    """Which norms stand behind the blocks, as arguments of timm's model."""
    pooled = "fc_norm.weight" in weights
    return {"fc_norm": pooled} | (
        {} if pooled or "norm.weight" in weights else {"final_norm": False}
    )
