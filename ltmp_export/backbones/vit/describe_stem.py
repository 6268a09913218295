"""timm's `HybridEmbed` read back as a `Stem`."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import (
    BatchNormAct2d,
    ConvNormAct,
    GroupNormAct,
    HybridEmbed,
    LayerNorm2d,
    LayerNormAct2d,
    StdConv2dSame,
)
from timm.layers.pool2d_same import MaxPool2dSame
from timm.models.resnetv2 import Bottleneck, DownsampleConv, ResNetV2
from timm.models.vision_transformer_hybrid import ConvStem
from timm.models.vitamin import Downsample2d, MbConvLNBlock, MbConvStages, StridedConv
from timm.models.vitamin import Stem as FirstConvs
from torch import Tensor, nn

from ltmp_export.errors import InputError
from ltmp_export.plan import stem as plans
from ltmp_export.plan.stem import PATH, Stem, StemConv

_KNOWN: Mapping[str, tuple[Any, ...]] = {
    plans.PLAIN: (ConvStem, ConvNormAct, nn.Conv2d, BatchNormAct2d),
    plans.MBCONV: (
        MbConvStages, FirstConvs, MbConvLNBlock, Downsample2d, StridedConv, nn.Sequential,
        nn.Conv2d, LayerNormAct2d, LayerNorm2d,
    ),
    plans.RESNET: (
        ResNetV2, nn.Sequential, Bottleneck, DownsampleConv, StdConv2dSame, GroupNormAct,
        MaxPool2dSame,
    ),
}  # fmt: skip


def describe(embedding: Any, activation: Any) -> Stem | None:
    """The convolutions in front of a patch embedding, None where there are none.

    Args:
        embedding: timm's module.
        activation: Names an activation module, see `describe.activation`.

    Raises:
        InputError: They are not supported.
    """
    if type(embedding) is not HybridEmbed:
        return None
    backbone = embedding.backbone
    kind = _kind(backbone)
    inner = (getattr(m, name, None) for m in backbone.modules() for name in ("act", "act1", "act2"))
    acts = [module for module in inner if isinstance(module, nn.Module)]
    named = {activation(act) for act in acts if not isinstance(act, nn.Identity)}
    if len(named) != 1:
        raise InputError(f"a convolutional stem with the activations {named} is not supported")
    convs = _convs(backbone, embedding.img_size)
    height, width = embedding.patch_size
    patch = (height, width) if isinstance(embedding.proj, nn.Conv2d) else None
    return Stem(kind, convs, embedding.feature_dim, patch, named.pop())


def _kind(backbone: nn.Module) -> str:
    """One of `plans.KINDS`; every module must be one that the graph has.

    Raises:
        InputError: One is not.
    """
    found = {ConvStem: plans.PLAIN, MbConvStages: plans.MBCONV}
    kind = found.get(type(backbone), plans.RESNET)
    eps = plans.LAYER_NORM_EPS if kind == plans.MBCONV else plans.NORM_EPS
    for path, module in backbone.named_modules():
        leaf = not list(module.children()) and not list(module.parameters(recurse=False))
        stage = type(module).__name__ in ("ResNetStage", "ClassifierHead", "SelectAdaptivePool2d")
        if not (isinstance(module, _KNOWN[kind]) or (stage and kind == plans.RESNET) or leaf):
            raise InputError(
                f"{type(module).__name__} ({PATH}.{path}) in a convolutional stem is not supported"
            )
        norm = getattr(module, "eps", None)
        wanted = plans.WEIGHT_EPS if isinstance(module, StdConv2dSame) else eps
        if norm is not None and norm != wanted:
            raise InputError(f"{PATH}.{path} has the epsilon {norm:g}; supported is {wanted:g}")
        if isinstance(module, GroupNormAct) and module.num_groups != plans.GROUPS:
            raise InputError(f"{PATH}.{path} has {module.num_groups} groups, not {plans.GROUPS}")
    return kind


def _convs(backbone: nn.Module, size: tuple[int, int]) -> tuple[StemConv, ...]:
    """All convolutions in the order in which they run on images of this size."""
    found: list[StemConv] = []
    empty = copy.deepcopy(backbone).to("meta")

    def watched(path: str) -> Any:
        def hook(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            (kernel, _), (stride, _) = module.kernel_size, module.stride
            pads = _pads(module, tuple(inputs[0].shape[2:]))
            rows, columns = output.shape[2:]
            outs, ins = module.weight.shape[:2]
            found.append(
                StemConv(path, ins, outs, kernel, stride, module.groups, pads, rows, columns)
            )

        return hook

    for path, module in empty.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(watched(f"{PATH}.{path}"))
    first = next(module for module in empty.modules() if isinstance(module, nn.Conv2d))
    with torch.inference_mode():
        empty(torch.zeros(1, first.in_channels, *size, device="meta"))
    return tuple(found)


def _pads(conv: Any, size: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Cells above, left, below, right of a map of this size."""
    if not isinstance(conv, StdConv2dSame):
        down, across = conv.padding
        return down, across, down, across
    (kernel, _), (stride, _) = conv.kernel_size, conv.stride
    lacking = [max((math.ceil(n / stride) - 1) * stride + kernel - n, 0) for n in size]
    before = [n // 2 for n in lacking]
    after = [n - n // 2 for n in lacking]
    return before[0], before[1], after[0], after[1]
