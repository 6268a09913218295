"""A timm EfficientViT of MIT read back as plain numbers."""

from __future__ import annotations

from typing import Any

from timm.models import efficientvit_mit as timm_models
from torch import nn

from ltmp_export.backbones.efficientvit.geometry import Cells, EfficientVit
from ltmp_export.backbones.hybrid import describe as hybrid
from ltmp_export.backbones.hybrid.convolutions import Chain, Conv
from ltmp_export.backbones.hybrid.describe import normed
from ltmp_export.backbones.hybrid.geometry import Piece
from ltmp_export.errors import InputError
from ltmp_export.plan.geometry import Size

# The convolutions of each kind of block, in order.
_PARTS: dict[type[nn.Module], tuple[str, ...]] = {
    timm_models.DSConv: ("depth_conv", "point_conv"),
    timm_models.MBConv: ("inverted_conv", "depth_conv", "point_conv"),
}


def describe(model: nn.Module, name: str, image_size: Size | None = None) -> EfficientVit:
    """The geometry of a timm model on images of a size, by default that which timm knows.

    Raises:
        InputError: The model has a feature that is not supported.
    """
    if type(model) is not timm_models.EfficientVit:
        raise InputError(
            f"{type(model).__name__} is not supported; expected timm's EfficientVit (MIT's)"
        )
    timm_model: Any = model  # timm's attributes are untyped
    pieces: list[Piece] = []
    for part, module in timm_model.stem.named_children():
        pieces.append(_piece(f"stem.{part}", module))
    for stage, blocks in enumerate(timm_model.stages):
        for number, block in enumerate(blocks.blocks):
            pieces.append(_piece(f"stages.{stage}.blocks.{number}", block))
    head = timm_model.head
    pieces.append(_piece("head.in_conv", head.in_conv))
    hybrid.require_means(head.global_pool)
    hidden, norm, act, _, last = head.classifier
    layers = type(hidden) is type(last) is nn.Linear and type(norm) is nn.LayerNorm
    if not layers or hybrid.act_of(act) != EfficientVit.activation:
        raise InputError(f"the classifier {head.classifier} is not supported".replace("\n", " "))
    image_size = image_size or hybrid.usual_size(model, name)
    try:
        return EfficientVit(
            name=name,
            image_size=image_size,
            in_chans=timm_model.in_chans,
            classes=last.out_features,
            pieces=tuple(pieces),
            head=(hidden.in_features, hidden.out_features),
            norm_eps=float(norm.eps),
            batch_eps=hybrid.the_epsilon(model, nn.BatchNorm2d),
        )
    except ValueError as err:
        height, width = image_size
        raise InputError(f"{name} on images of {height} × {width} pixels: {err}") from err


def _piece(path: str, block: Any) -> Piece:
    if type(block) is timm_models.ConvNormAct:
        return Chain((normed(path, block, "norm"),))
    if type(block) is timm_models.ResidualBlock:
        return _residual(path, block)
    if type(block) is timm_models.EfficientVitBlock:
        return _cells(path, block)
    raise InputError(f"{type(block).__name__} ({path}) is not supported in an EfficientViT")


def _residual(path: str, block: Any) -> Chain:
    main = block.main
    hybrid.refuse(
        {
            f"{type(main).__name__} in {path}": type(main) not in _PARTS,
            f"a norm in front of {path}": type(block.pre_norm) is not nn.Identity,
            f"{type(block.shortcut).__name__} as shortcut of {path}": (
                type(block.shortcut) not in (type(None), nn.Identity)
            ),
        }
    )
    convs = tuple(
        normed(f"{path}.main.{part}", getattr(main, part), "norm") for part in _PARTS[type(main)]
    )
    return Chain(convs, block.shortcut is not None)


def _cells(path: str, block: Any) -> Cells:
    """An EfficientViT block."""
    context, attn = block.context_module, block.context_module.main
    hybrid.refuse(
        {
            f"{type(attn).__name__} in {path}": type(attn) is not timm_models.LiteMLA,
            f"{type(context.shortcut).__name__} as shortcut of {path}": (
                type(context.shortcut) is not nn.Identity
            ),
            f"a norm in front of {path}": type(context.pre_norm) is not nn.Identity,
        }
    )
    own = f"{path}.context_module.main"
    qkv, proj = (normed(f"{own}.{part}", getattr(attn, part), "norm") for part in ("qkv", "proj"))
    hybrid.refuse(
        {
            f"{type(attn.kernel_func).__name__} in {path}": type(attn.kernel_func) is not nn.ReLU,
            f"a norm or an activation behind {own}.qkv": bool(qkv.norm or qkv.act),
            f"an activation behind {own}.proj": bool(proj.act),
        }
    )
    return Cells(
        path=path,
        heads=qkv.outs // (3 * attn.dim),
        head_width=attn.dim,
        eps=float(attn.eps),
        qkv=qkv,
        scales=tuple(_scale(f"{own}.aggreg.{n}", scale) for n, scale in enumerate(attn.aggreg)),
        proj=proj,
        local=_residual(f"{path}.local_module", block.local_module),
    )


def _scale(path: str, convs: Any) -> tuple[Conv, ...]:
    return tuple(hybrid.conv(f"{path}.{number}", conv) for number, conv in enumerate(convs))
