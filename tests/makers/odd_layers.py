"""Small random ViTs of timm's that have other layers than DeiT; several to a model."""

from __future__ import annotations

from functools import partial

import torch
from timm.layers import DiffAttention, GluMlp, HybridEmbed, RmsNorm, StdConv2dSame, SwiGLU
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import (
    DiffParallelScalingBlock,
    ParallelScalingBlock,
    ResPostBlock,
)
from timm.models.vision_transformer_hybrid import ConvStem
from timm.models.vitamin import GeGluMlp, MbConvStages, VitCfg
from torch import nn

from tests.makers.random_vits import Case

_RMS = partial(RmsNorm, eps=1e-5)

AIMV2 = Case(
    "RMSNorm and SwiGLU, without biases",
    61,
    {
        "img_size": (16, 12),
        "norm_layer": _RMS,
        "embed_norm_layer": _RMS,
        "mlp_layer": SwiGLU,
        "act_layer": nn.SiLU,
        "qkv_bias": False,
        "proj_bias": False,
        "qk_norm": True,
    },
)
PACKED = Case(
    "SwiGLU in one layer",
    62,
    {
        "mlp_layer": partial(GluMlp, gate_last=False),
        "act_layer": nn.SiLU,
        "init_values": 1e-5,
        "dynamic_img_size": True,
    },
)
NORMED = Case("GeGLU behind a norm", 64, {"mlp_layer": GeGluMlp, "img_size": (16, 12)})
SCALED = Case(
    "SwiGLU with norms inside",
    65,
    {"mlp_layer": SwiGLU, "scale_mlp_norm": True, "scale_attn_norm": True, "pre_norm": True},
)
GATE_LAST = Case("gate behind the value", 63, {"mlp_layer": GluMlp, "scale_mlp_norm": True})

POOLED = Case(
    "attention pooling of patches alone",
    66,
    {"img_size": (16, 12), "global_pool": "map", "init_values": 1e-5},
)
POOLED_ALL = Case(
    "attention pooling of all tokens, RMSNorm and SwiGLU",
    67,
    AIMV2.kwargs | {"global_pool": "map", "pool_include_prefix": True},
)
MEAN_ALL = Case(
    "average of all tokens",
    68,
    {"global_pool": "avg", "pool_include_prefix": True, "img_size": (16, 12)},
)


def _resnet() -> nn.Module:
    """Two stages of one bottleneck each, as in timm's hybrids."""
    made: nn.Module = ResNetV2(
        layers=(1, 1), channels=(128, 128), stem_chs=32, num_classes=0, global_pool="",
        preact=False, stem_type="same", conv_layer=partial(StdConv2dSame, eps=1e-8),
    )  # fmt: skip
    return made


def _convs() -> nn.Module:
    """As in MobileCLIP, with statistics that are not those of a norm before training."""
    stem: nn.Module = ConvStem(
        3, 3, (16, 32, 48), (4, 2, 3), (4, 2, 1), (0, 0, 1), act_layer=nn.GELU
    )
    generator = torch.Generator().manual_seed(1)
    for name, value in stem.named_buffers():
        if "running" in name:
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return stem


RESNET = Case(
    "behind a ResNet",
    69,
    {
        "embed_layer": partial(HybridEmbed, backbone=_resnet()),
        "img_size": (48, 40),
        "patch_size": 1,
        "depth": 2,
    },
)
CONVS = Case(
    "behind convolutions, without projection",
    70,
    {
        "embed_layer": partial(HybridEmbed, backbone=_convs(), proj=False),
        "img_size": (32, 24),
        "patch_size": 1,
        "depth": 2,
    },
)
_STAGES = MbConvStages(VitCfg((8, 16, 48), (1, 2), 8))
MBCONV = Case(
    "behind bottlenecks, GeGLU",
    77,
    {
        "embed_layer": partial(HybridEmbed, backbone=_STAGES, proj=False),
        "mlp_layer": GeGluMlp,
        "img_size": (64, 48),
        "patch_size": 1,
        "depth": 2,
        "class_token": False,
        "global_pool": "avg",
    },
)

DIFFERENTIAL = Case(
    "differential attention",
    71,
    {"attn_layer": DiffAttention, "qk_norm": True, "init_values": 1e-5, "img_size": (16, 12)},
)
POST_NORM = Case("norms behind", 72, {"block_fn": ResPostBlock, "qkv_bias": False})
POST_NORM_BARE = Case(
    "norms behind, as timm has it",
    73,
    POST_NORM.kwargs | {"class_token": False, "global_pool": "avg", "fc_norm": True},
)

PARALLEL = Case(
    "MLP beside attention",
    74,
    {
        "block_fn": ParallelScalingBlock,
        "init_values": 1e-5,
        "qkv_bias": False,
        "img_size": (16, 12),
        "class_token": False,
        "reg_tokens": 1,
        "no_embed_class": True,
        "global_pool": "avg",
    },
)
PARALLEL_JOINED = Case(
    "MLP beside attention, one layer behind both",
    75,
    {
        "block_fn": partial(ParallelScalingBlock, fuse_out_proj=True),
        "qk_norm": True,
        "norm_layer": _RMS,
    },
)
PARALLEL_DIFFERENTIAL = Case(
    "MLP beside differential attention",
    76,
    PARALLEL.kwargs | {"block_fn": DiffParallelScalingBlock, "qkv_bias": True, "qk_norm": True},
)

ORACLE = (AIMV2, PACKED, NORMED, SCALED, PARALLEL, PARALLEL_JOINED)  # what the oracles know
_OTHERS = (GATE_LAST, POOLED, POOLED_ALL, MEAN_ALL, RESNET, CONVS, DIFFERENTIAL, POST_NORM)
ALL = (*ORACLE, *_OTHERS, MBCONV, PARALLEL_DIFFERENTIAL)
