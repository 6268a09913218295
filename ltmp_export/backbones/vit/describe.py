"""A timm model read back as a `Vit`."""

from __future__ import annotations

import math
import re
from typing import Any

from timm.layers import (
    AttentionPoolLatent,
    DiffAttention,
    GluMlp,
    HybridEmbed,
    LayerScale,
    Mlp,
    PatchEmbed,
    RmsNorm,
    SwiGLU,
)
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import (
    Attention,
    Block,
    DiffParallelScalingBlock,
    ParallelScalingBlock,
    ResPostBlock,
    VisionTransformer,
)
from timm.models.vitamin import GeGluMlp
from torch import nn

from ltmp_export.backbones.vit import describe_stem, eager
from ltmp_export.backbones.vit.class_and_mean import ClassAndMean
from ltmp_export.backbones.vit.multi_scale import MultiScalePatchEmbed
from ltmp_export.backbones.vit.vit_pytorch import NormedPatchEmbed
from ltmp_export.errors import InputError
from ltmp_export.plan import difference, mlps, parallel
from ltmp_export.plan.pooling import AttentionPool
from ltmp_export.plan.vit import CLASS_AND_MEAN, Vit

_MLPS = {Mlp: mlps.PLAIN, SwiGLU: mlps.SPLIT, GeGluMlp: mlps.NORMED}
_POOLS = ("token", "avg", "map", CLASS_AND_MEAN)
_BLOCKS, _ATTENTION = (Block, ResPostBlock), (Attention, DiffAttention)
_SIDE_BY_SIDE = (ParallelScalingBlock, DiffParallelScalingBlock)
_VITS = (VisionTransformer, VisionTransformerDistilled, ClassAndMean)
_EMBEDDINGS = (HybridEmbed, PatchEmbed, NormedPatchEmbed, MultiScalePatchEmbed)


def describe(model: nn.Module, name: str) -> Vit:
    """The geometry of a timm model, refusing by name whatever the rewrite does not cover.

    Raises:
        InputError: The model has a feature that is not supported.
    """
    if type(model) not in _VITS:
        raise InputError(f"{type(model).__name__} is not supported; expected VisionTransformer")
    _refuse_features(model)
    timm_model: Any = model  # timm's attributes are untyped
    first = timm_model.blocks[0]
    attn = eager.attends(first)
    differs = eager.maps(attn) > attn.num_heads
    return Vit(
        name=name,
        image_size=tuple(timm_model.patch_embed.img_size),
        patch_size=patch_size(timm_model.patch_embed),
        in_chans=timm_model.in_chans,
        classes=timm_model.num_classes,
        depth=len(timm_model.blocks),
        width=timm_model.embed_dim,
        mlp_width=mlp_width(first),
        heads=attn.num_heads,
        head_width=attn.head_dim * (2 if differs else 1),
        norm_eps=norm_eps(model),
        activation=activation(act(first)),
        pool=timm_model.global_pool,
        prefix=timm_model.num_prefix_tokens,
        registers=0 if timm_model.reg_token is None else timm_model.num_reg_tokens,
        coarse=type(timm_model.patch_embed) is MultiScalePatchEmbed,
        mlp=mlp_kind(getattr(first, "mlp", None)),
        latent=attention_pool(timm_model.attn_pool),
        pool_prefix=bool(timm_model.pool_include_prefix),
        differential=differs,
        post_norm=type(first) is ResPostBlock,
        parallel=side_by_side(first),
        stem=describe_stem.describe(timm_model.patch_embed, activation),
    )


def patch_size(embedding: Any) -> tuple[int, int]:
    """(height, width) in pixels of what becomes a token."""
    if type(embedding) is HybridEmbed:
        embedding = embedding.feat_ratio(as_scalar=False)
        return embedding[0], embedding[1]
    height, width = embedding.patch_size
    return height, width


def attention_pool(module: Any) -> AttentionPool | None:
    """An attention pooling of timm's, None of none."""
    if module is None:
        return None
    mlp = module.mlp
    return AttentionPool(module.num_heads, mlp.fc1.out_features, activation(mlp.act))


def plain_pool(module: Any, width: int) -> bool:
    """Whether there is no attention pooling, or one of one query with projection and MLP."""
    if module is None:
        return True
    plain = type(module) is AttentionPoolLatent and type(module.mlp) is Mlp
    if not plain or module.latent_len != 1 or module.pool != "token":
        return False
    return module.pos_embed is None and module.kv.out_features == 2 * width


def kinds(model: nn.Module) -> list[str]:
    """Classes of timm's that a plain ViT does not have; names of weights may not tell them."""
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        return [f"timm's class {type(model).__name__}"]
    timm_model: Any = model  # timm's attributes are untyped
    first = timm_model.blocks[0]
    found: dict[type, tuple[type, ...]] = {type(first): (*_BLOCKS, *_SIDE_BY_SIDE)}
    if type(first) not in _SIDE_BY_SIDE:
        found[type(getattr(first, "attn", None))] = _ATTENTION
    return [f"timm's {own.__name__}" for own, known in found.items() if own not in known]


def _refuse_features(model: VisionTransformer) -> None:
    embedding = model.patch_embed
    distilled = isinstance(model, VisionTransformerDistilled)
    (height, width), (ph, pw) = embedding.img_size, patch_size(embedding)
    whole = height % ph == 0 and width % pw == 0
    plain = type(embedding) is PatchEmbed
    coarse = type(embedding) is MultiScalePatchEmbed
    even = height % (2 * ph) == 0 and width % (2 * pw) == 0
    unsupported = {
        "images that are no whole number of patches": not plain and not whole,
        "images that are no whole number of coarse patches": coarse and not even,
        "registers beside a distillation token": distilled and model.reg_token is not None,
        "attention pooling of another kind": not plain_pool(model.attn_pool, model.embed_dim),
        f"global_pool={model.global_pool!r}": model.global_pool not in _POOLS,
        f"{type(embedding).__name__}": type(embedding) not in _EMBEDDINGS,
        f"{type(model.head).__name__} as head": type(model.head)
        is not (nn.Linear if model.num_classes else nn.Identity),
    }
    for index, block in enumerate(model.blocks):
        known = (*_BLOCKS, *_SIDE_BY_SIDE)
        if type(block) not in known or type(block) is not type(model.blocks[0]):
            unsupported[type(block).__name__] = True
            break
        attn = eager.attends(block)
        unsupported |= {
            "differential attention of other numbers": not _usual_difference(attn, index),
            "another LayerScale": not all(
                type(getattr(block, name, None)) in (LayerScale, nn.Identity, type(None))
                for name in ("ls", "ls1", "ls2")
            ),
        }
        if attn is block:
            other = side_by_side(block) != side_by_side(model.blocks[0])
            unsupported["blocks of several kinds"] = other
            continue
        mlp = block.mlp
        unsupported |= {
            type(attn).__name__: type(attn) not in _ATTENTION,
            "attention of several kinds": type(attn) is not type(model.blocks[0].attn),
            "gated attention": getattr(attn, "gate", None) is not None,
            type(mlp).__name__: type(mlp) not in (*_MLPS, GluMlp),
            "MLPs of several kinds": mlp_kind(mlp) != mlp_kind(model.blocks[0].mlp),
        }
    named = [feature for feature, present in unsupported.items() if present]
    if named:
        raise InputError(f"not supported in the exported form: {', '.join(named)}")


def _usual_difference(attn: Any, block: int) -> bool:
    """Whether attention is no differential one, or one with timm's λ of this block and epsilon."""
    if eager.maps(attn) == attn.num_heads:
        return True
    usual = math.isclose(attn.lambda_init, difference.start(block))
    return usual and bool(attn.sub_norm.eps == difference.NORM_EPS)


def mlp_kind(module: Any) -> str:
    """The kind of an MLP of timm's, one of `plan.mlps.KINDS`."""
    if type(module) is GluMlp:
        return mlps.PACKED_LAST if module.gate_last else mlps.PACKED
    return _MLPS.get(type(module), mlps.PLAIN)


def act(block: Any) -> nn.Module:
    """The activation of a block's MLP."""
    found: nn.Module = block.mlp_act if eager.side_by_side(block) else block.mlp.act
    return found


def mlp_width(block: Any) -> int:
    """Channels that the last layer of a block's MLP is given."""
    if eager.side_by_side(block):
        return int(block.in_split[0])
    return int(last_layer(block.mlp).in_features)


def side_by_side(block: Any) -> str:
    """How a block has attention and MLP side by side, one of `plan.parallel.KINDS`."""
    if not eager.side_by_side(block):
        return ""
    return parallel.APART if block.out_proj is None else parallel.JOINED


def last_layer(module: Any) -> Any:
    """The last linear layer of an MLP of timm's."""
    return module.w2 if type(module) is GeGluMlp else module.fc2


def norm_eps(model: VisionTransformer) -> float:
    """The one epsilon of all norms; others than LayerNorm and RMSNorm are refused."""
    found: dict[float, str] = {}
    for path, module in model.named_modules():
        if path.endswith(".sub_norm"):  # of differential attention, whose epsilon is its own
            continue
        of_stem = path.startswith("patch_embed.backbone.")
        if of_stem or not re.search(r"(^|[._])(fc_norm|norm\d?|norm_pre)$", path):
            continue
        layer = isinstance(module, nn.LayerNorm) and module.bias is not None
        if layer or (type(module) is RmsNorm and module.weight is not None):
            found[module.eps] = path
        elif type(module) is not nn.Identity:
            raise InputError(
                f"{type(module).__name__} ({path}) is not supported; only LayerNorm with a bias "
                "and RMSNorm"
            )
    if len(found) != 1:
        raise InputError(f"norms with different epsilons are not supported: {found}")
    return next(iter(found))


def activation(module: nn.Module) -> str:
    """An activation as one of `plan.geometry.ACTIVATIONS`.

    Raises:
        InputError: It is none of them.
    """
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
