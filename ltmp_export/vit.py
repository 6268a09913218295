"""What a plain Vision Transformer is here: geometry and the few facts weights do not tell.

Shape letters used throughout the package: B images, N tokens, T packed rows, C channels,
H heads, D channels per head.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from timm.layers import LayerScale, Mlp, PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import nn

from ltmp_export.errors import InputError
from ltmp_export.vit_pytorch import NormedPatchEmbed


@dataclass(frozen=True)
class Vit:
    """What the weights' names and shapes do not say about a plain ViT, plus its geometry.

    Attributes:
        name: timm's name, the name the file gives itself, or "vit".
        image_size: (height, width) in pixels.
        patch_size: (height, width) in pixels.
        width: Channels C of a token.
        mlp_width: Channels inside the MLP.
        heads: Attention heads H.
        head_width: Channels D per head.
        norm_eps: Epsilon of every LayerNorm.
        activation: "gelu", "gelu_tanh", "quick_gelu", "silu" or "relu".
        pool: "token" (class token) or "avg" (plain mean over patch tokens).
        prefix: Tokens before the patches: 1 class token, 2 with a distillation token, or none.
    """

    name: str
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    in_chans: int
    classes: int
    depth: int
    width: int
    mlp_width: int
    heads: int
    head_width: int
    norm_eps: float
    activation: str
    pool: str
    prefix: int = 1  # files made before it was written have a class token

    def __post_init__(self) -> None:
        sizes: tuple[int, ...] = (
            *self.image_size,
            *self.patch_size,
            self.in_chans,
            self.classes,
            self.depth,
        )
        sizes += (self.width, self.mlp_width, self.heads, self.head_width)
        if len(sizes) != 11 or not all(type(size) is int and 0 < size < 2**31 for size in sizes):
            raise ValueError(f"a ViT of sizes {sizes}; expected 11 positive integers")
        pools = {0: ("avg",), 1: ("token", "avg"), 2: ("token",)}
        if type(self.prefix) is not int or self.pool not in pools.get(self.prefix, ()):
            raise ValueError(f"a ViT of {self.prefix!r} prefix tokens with {self.pool!r} pooling")

    @property
    def patches(self) -> int:
        """Patch tokens of one image."""
        (h, w), (ph, pw) = self.image_size, self.patch_size
        return (h // ph) * (w // pw)

    @property
    def tokens(self) -> int:
        """Tokens of one image before the first block: patches and those before them."""
        return self.patches + self.prefix

    @property
    def distilled(self) -> bool:
        """Whether there is a distillation token, with a classifier of its own."""
        return self.prefix == 2

    @property
    def classifiers(self) -> int:
        """Linear heads; the logits are their mean."""
        return 2 if self.distilled else 1

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        return (self.in_chans, *self.image_size)

    def to_json(self) -> dict[str, Any]:
        """Plain values for the exported file's metadata; see `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Vit:
        """The inverse of `to_json`."""
        pairs: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**pairs)


def describe(model: nn.Module, name: str) -> Vit:
    """Read a timm model back as a `Vit`, refusing by name whatever the rewrite does not cover.

    Raises:
        InputError: The model has a feature that is not supported.
    """
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        raise InputError(f"{type(model).__name__} is not supported; expected VisionTransformer")
    _refuse_features(model)
    timm_model: Any = model  # timm's attributes are untyped
    first = timm_model.blocks[0]
    return Vit(
        name=name,
        image_size=tuple(timm_model.patch_embed.img_size),
        patch_size=tuple(timm_model.patch_embed.patch_size),
        in_chans=timm_model.patch_embed.proj.in_channels,
        classes=timm_model.num_classes,
        depth=len(timm_model.blocks),
        width=timm_model.embed_dim,
        mlp_width=first.mlp.fc1.out_features,
        heads=first.attn.num_heads,
        head_width=first.attn.head_dim,
        norm_eps=_norm_eps(model),
        activation=_activation(first.mlp.act),
        pool=timm_model.global_pool,
        prefix=timm_model.num_prefix_tokens,
    )


def _refuse_features(model: VisionTransformer) -> None:
    embedding = model.patch_embed
    normed = type(embedding) is NormedPatchEmbed
    (height, width), (ph, pw) = embedding.img_size, embedding.patch_size
    whole = height % ph == 0 and width % pw == 0
    unsupported = {
        "a model without class token": model.cls_token is None and not normed,
        "images that are no whole number of patches": normed and not whole,
        "a model without position embedding": model.pos_embed is None,
        "register tokens": getattr(model, "reg_token", None) is not None,
        "attention pooling": model.attn_pool is not None,
        f"global_pool={model.global_pool!r}": model.global_pool not in ("token", "avg"),
        "pool_include_prefix": getattr(model, "pool_include_prefix", False),
        "dynamic_img_size": model.dynamic_img_size,
        f"{type(embedding).__name__}": not normed and type(embedding) is not PatchEmbed,
        f"{type(model.head).__name__} as head": type(model.head) is not nn.Linear,
    }
    for block in model.blocks:
        if type(block) is not Block:
            unsupported[type(block).__name__] = True
            break
        attn, mlp = block.attn, block.mlp
        unsupported |= {
            type(attn).__name__: type(attn) is not Attention,
            "gated attention": getattr(attn, "gate", None) is not None,
            type(mlp).__name__: type(mlp) is not Mlp,
            type(block.ls1).__name__: type(block.ls1) not in (LayerScale, nn.Identity),
        }
    named = [feature for feature, present in unsupported.items() if present]
    if named:
        raise InputError(f"not supported in the exported form: {', '.join(named)}")


def _norm_eps(model: VisionTransformer) -> float:
    """The one epsilon of all LayerNorms; other kinds of norm are refused."""
    found: dict[float, str] = {}
    for path, module in model.named_modules():
        if not re.search(r"(^|[._])(fc_norm|norm\d?|norm_pre)$", path):
            continue
        if isinstance(module, nn.LayerNorm):
            found[module.eps] = path
        elif type(module) is not nn.Identity:
            raise InputError(f"{type(module).__name__} ({path}) is not supported; only LayerNorm")
    if len(found) != 1:
        raise InputError(f"LayerNorms with different epsilons are not supported: {found}")
    return next(iter(found))


def _activation(module: nn.Module) -> str:
    kind = type(module).__name__
    if kind == "GELU":
        tanh = getattr(module, "approximate", "none") == "tanh"
        return "gelu_tanh" if tanh else "gelu"
    names = {
        "GELUTanh": "gelu_tanh",
        "QuickGELU": "quick_gelu",
        "QuickGELUActivation": "quick_gelu",
    }
    names |= {"SiLU": "silu", "Swish": "silu", "ReLU": "relu"}
    if kind not in names:
        raise InputError(f"activation {kind} is not supported; only {', '.join(names)} and GELU")
    return names[kind]
