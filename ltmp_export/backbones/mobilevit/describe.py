"""A timm MobileViT read back as plain numbers."""

from __future__ import annotations

from typing import Any

from timm.layers import Mlp
from timm.models.byobnet import BottleneckBlock, ByobNet
from timm.models.mobilevit import MobileVitBlock
from timm.models.vision_transformer import Attention, Block
from torch import nn

from ltmp_export.backbones.hybrid import describe as hybrid
from ltmp_export.backbones.hybrid.convolutions import Chain, Conv
from ltmp_export.backbones.hybrid.describe import normed
from ltmp_export.backbones.hybrid.geometry import Piece
from ltmp_export.backbones.mobilevit.geometry import MobileVit, Patches
from ltmp_export.errors import InputError
from ltmp_export.plan.geometry import Size


def describe(model: nn.Module, name: str, image_size: Size | None = None) -> MobileVit:
    """The geometry of a timm model on images of a size, by default that which timm knows.

    Raises:
        InputError: The model has a feature that is not supported.
    """
    if type(model) is not ByobNet:
        raise InputError(f"{type(model).__name__} is not supported; expected timm's ByobNet")
    timm_model: Any = model  # timm's attributes are untyped
    pieces: list[Piece] = [Chain((normed("stem", timm_model.stem, "bn"),))]
    for stage, blocks in enumerate(timm_model.stages):
        pieces += [_piece(f"stages.{stage}.{n}", block) for n, block in enumerate(blocks)]
    if not any(isinstance(piece, Patches) for piece in pieces):
        raise InputError(f"{name} has no MobileViT block of the first version")
    if type(timm_model.final_conv) is not nn.Identity:
        pieces.append(Chain((normed("final_conv", timm_model.final_conv, "bn"),)))
    hybrid.require_means(getattr(timm_model.head, "global_pool", None))
    fc = getattr(timm_model.head, "fc", None)
    if type(fc) is not nn.Linear:
        raise InputError(f"{type(fc).__name__} as classifier is not supported; expected Linear")
    image_size = image_size or hybrid.usual_size(model, name)
    try:
        return MobileVit(
            name=name,
            image_size=image_size,
            in_chans=timm_model.in_chans,
            classes=fc.out_features,
            pieces=tuple(pieces),
            head=(fc.in_features,),
            norm_eps=hybrid.the_epsilon(model, nn.LayerNorm),
            batch_eps=hybrid.the_epsilon(model, nn.BatchNorm2d),
        )
    except ValueError as err:
        height, width = image_size
        raise InputError(f"{name} on images of {height} × {width} pixels: {err}") from err


def _piece(path: str, block: Any) -> Piece:
    if type(block) is BottleneckBlock:
        return _bottleneck(path, block)
    if type(block) is MobileVitBlock:
        return _patches(path, block)
    raise InputError(f"{type(block).__name__} ({path}) is not supported in a MobileViT")


def _bottleneck(path: str, block: Any) -> Chain:
    unsupported = {
        f"{type(block.attn).__name__} in {path}": type(block.attn) is not nn.Identity,
        f"{type(block.attn_last).__name__} in {path}": type(block.attn_last) is not nn.Identity,
        f"a second convolution in {path}": type(block.conv2b_kxk) is not nn.Identity,
        f"{type(block.act).__name__} behind {path}": type(block.act) is not nn.Identity,
        f"{type(block.shortcut).__name__} as shortcut of {path}": (
            type(block.shortcut) not in (type(None), nn.Identity)
        ),
    }
    hybrid.refuse(unsupported)
    parts = ("conv1_1x1", "conv2_kxk", "conv3_1x1")
    convs = tuple(normed(f"{path}.{part}", getattr(block, part), "bn") for part in parts)
    return Chain(convs, block.shortcut is not None)


def _patches(path: str, block: Any) -> Patches:
    """A MobileViT block."""
    if block.conv_fusion is None:
        raise InputError(f"{path} without fusion is not supported")
    for number, one in enumerate(block.transformer):
        _require_plain(f"{path}.transformer.{number}", one)
    first = block.transformer[0]
    local: tuple[Conv, ...] = (
        normed(f"{path}.conv_kxk", block.conv_kxk, "bn"),
        hybrid.conv(f"{path}.conv_1x1", block.conv_1x1),
    )
    return Patches(
        path=path,
        patch=tuple(block.patch_size),
        blocks=len(block.transformer),
        width=first.attn.qkv.in_features,
        mlp_width=first.mlp.fc1.out_features,
        heads=first.attn.num_heads,
        local=local,
        project=normed(f"{path}.conv_proj", block.conv_proj, "bn"),
        fusion=normed(f"{path}.conv_fusion", block.conv_fusion, "bn"),
    )


def _require_plain(path: str, block: Any) -> None:
    """Check that a transformer block is the one that MobileViT has."""
    hybrid.refuse({f"{type(block).__name__} ({path})": type(block) is not Block})
    attn, mlp = block.attn, block.mlp
    hybrid.refuse(
        {
            f"{type(attn).__name__} in {path}": type(attn) is not Attention,
            f"{type(mlp).__name__} in {path}": type(mlp) is not Mlp,
        }
    )
    extra = {"gate": getattr(attn, "gate", None)}
    extra |= {word: getattr(attn, word) for word in ("q_norm", "k_norm", "norm")}
    extra |= {"ls1": block.ls1, "ls2": block.ls2, "mlp.norm": mlp.norm}
    hybrid.refuse(
        {
            f"{word} in {path}": module is not None and type(module) is not nn.Identity
            for word, module in extra.items()
        }
    )
    act = hybrid.act_of(mlp.act)
    if act != MobileVit.activation:
        raise InputError(f"activation {act} in {path} is not supported; expected SiLU")
