"""Small random ViTs of timm's that have other layers than DeiT; several to a model."""

from __future__ import annotations

from functools import partial

from timm.layers import GluMlp, RmsNorm, SwiGLU
from timm.models.vitamin import GeGluMlp
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

ORACLE = (AIMV2, PACKED, NORMED, SCALED)  # what the oracles know
ALL = (*ORACLE, GATE_LAST, POOLED, POOLED_ALL, MEAN_ALL)
