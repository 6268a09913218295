"""Small random ViTs with attention worth reducing, and thresholds that decide something.

timm's own initialisation makes attention uniform and all tokens alike. Here every parameter is
drawn at a scale that spreads attention, tells tokens apart and uses each option of the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.layers import GELUTanh, QuickGELU
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ltmp_export import families
from ltmp_export.backbones.vit import describe
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images.preprocessing import Preprocessing
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.vit import Vit
from ltmp_export.reference import Reference
from ltmp_export.statements.choices import Choices


@dataclass(frozen=True)
class Case:
    """One random ViT.

    Attributes:
        name: Of it.
        seed: Of its weights.
        kwargs: timm's arguments over `_DEFAULTS`; `distilled` for a distillation token.
        tied: Without positions of their own: patches of one colour then give the same token, and
            every choice is a tie.
    """

    name: str
    seed: int
    kwargs: dict[str, Any] = field(default_factory=dict, hash=False)
    tied: bool = False

    def __str__(self) -> str:
        return self.name


_DEFAULTS: dict[str, Any] = {
    "img_size": (12, 12),  # 9 patches, 10 tokens
    "patch_size": 4,
    "num_classes": 5,
    "embed_dim": 48,
    "depth": 3,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "norm_layer": partial(nn.LayerNorm, eps=1e-6),
}

_INERT = {"merge": 1.0, "prune": 0.0}  # thresholds that reduce nothing

EVEN = Case("even_tokens", 1)
ODD = Case("odd_tokens", 25, {"img_size": (16, 12)})  # 12 patches, 13 tokens
DEEP = Case("deep", 3, {"img_size": (24, 24), "embed_dim": 64, "depth": 4})  # 37 tokens
POOLED = (EVEN, ODD, Case("avg", 11, {"global_pool": "avg", "fc_norm": False}))
TIED = Case("same_position", 15, {"no_embed_class": True}, tied=True)

OPTIONS = (
    EVEN,
    ODD,
    DEEP,
    Case("patch_5x4", 4, {"img_size": (20, 28), "patch_size": (5, 4)}),
    Case("patch_norm", 23, {"embed_norm_layer": _DEFAULTS["norm_layer"], "img_size": (16, 12)}),
    Case("patch_8", 5, {"img_size": (32, 24), "patch_size": 8, "embed_dim": 32}),
    Case("four_heads_grey", 6, {"num_heads": 4, "in_chans": 1, "img_size": (16, 12)}),
    Case("qk_norm", 7, {"qk_norm": True, "img_size": (16, 16)}),
    Case("layer_scale", 8, {"init_values": 1e-5, "img_size": (16, 12)}),
    Case("pre_norm", 9, {"pre_norm": True}),
    Case("avg_fc_norm", 10, {"global_pool": "avg", "img_size": (16, 12)}),
    POOLED[2],
    Case("no_embed_class", 12, {"no_embed_class": True, "img_size": (16, 12)}),
    TIED,
    Case("no_biases", 14, {"qkv_bias": False, "proj_bias": False, "img_size": (16, 12)}),
    Case("attn_mlp_norm", 15, {"scale_attn_norm": True, "scale_mlp_norm": True}),
    Case("no_final_norm", 16, {"final_norm": False, "fc_norm": True}),
    Case("eps_1e-3", 17, {"norm_layer": partial(nn.LayerNorm, eps=1e-3), "img_size": (16, 12)}),
    Case("gelu_tanh", 18, {"act_layer": GELUTanh}),
    Case("quick_gelu", 19, {"act_layer": QuickGELU, "img_size": (16, 12)}),
    Case("silu", 20, {"act_layer": nn.SiLU}),
    Case("relu", 21, {"act_layer": nn.ReLU, "img_size": (16, 12)}),
    Case(
        "all_options",
        22,
        {
            "img_size": (16, 20),
            "patch_size": (4, 5),
            "qk_norm": True,
            "init_values": 1e-5,
            "pre_norm": True,
            "global_pool": "avg",
            "no_embed_class": True,
            "qkv_bias": False,
            "scale_attn_norm": True,
            "scale_mlp_norm": True,
            "act_layer": QuickGELU,
        },
    ),
)


def build(case: Case) -> tuple[VisionTransformer, Vit]:
    """The model with random weights, in eval mode, and its geometry."""
    kwargs = _DEFAULTS | case.kwargs
    distilled = kwargs.pop("distilled", False)
    model = (VisionTransformerDistilled if distilled else VisionTransformer)(**kwargs)
    generator = torch.Generator().manual_seed(case.seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(_drawn(name, value, generator))
        if case.tied:
            model.pos_embed.zero_()
    model.eval().requires_grad_(False)
    return model, describe.describe(model, case.name)


def _drawn(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(like.shape, generator=generator)
    if name in ("cls_token", "dist_token", "reg_token", "pos_embed"):
        return noise
    beside = name.startswith("blocks.") and name.endswith(("q_norm.weight", "k_norm.weight"))
    if beside or (name.endswith("norm.weight") and ".attn." in name):  # spread attention
        return 1.4 + 0.3 * noise
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.3 * noise
    if name.endswith("gamma"):
        return 0.7 + 0.3 * noise
    if name.endswith("bias"):
        return 0.3 * noise
    gain = 1.5 if "qkv" in name or "in_proj" in name else 1.0
    return noise * (gain / math.sqrt(like[0].numel()))


def key_layers(model: VisionTransformer, geometry: Vit) -> Iterator[tuple[Tensor, Tensor]]:
    """Weight [H * D, C] and bias [H * D] of each block's keys, to be changed in place."""
    inner = geometry.heads * geometry.head_width
    state = model.state_dict()
    for index in range(geometry.depth):
        qkv = f"blocks.{index}.attn.qkv"
        keys = slice(inner, 2 * inner)
        yield state[f"{qkv}.weight"][keys], state[f"{qkv}.bias"][keys]


def images(geometry: Vit, seed: int, batch: int = 5) -> Tensor:
    """[batch, channels, height, width]: noise of rising contrast, so that images differ in kind."""
    generator = torch.Generator().manual_seed(1000 + seed)
    contrast = torch.linspace(0.3, 2.0, batch)[:, None, None, None]
    return contrast * torch.randn((batch, *geometry.input_size), generator=generator)


def one_colour(vit: Vit) -> Tensor:
    """[5, channels, height, width], from black to white."""
    colours = torch.linspace(-1.0, 1.0, 5)[:, None, None, None]
    return colours.expand(-1, *vit.input_size).contiguous()


def equal_keys(case: Case) -> tuple[VisionTransformer, Vit]:
    """A model whose keys are all (2, 0, 0, …): ties and importances are exact in any precision.

    Every similarity is 1 and the importance of a token is its share of all patches.
    """
    model, vit = build(case)
    for weight, bias in key_layers(model, vit):
        weight.zero_()
        bias.zero_()
        bias[:: vit.head_width] = 2.0
    return model, vit


def bare(model: VisionTransformer, geometry: Vit, plan: Plan) -> Checkpoint:
    """What `load_checkpoint` would make of a model in memory."""
    grey = (0.5,) * geometry.in_chans
    plain = Preprocessing(grey, grey, 0.9, "bicubic")
    return Checkpoint(
        Path("made.pth"), "0" * 64, None, None, plan, geometry, model, plain, None, Choices(),
        (), (), (),
    )  # fmt: skip


def middle_plan(model: VisionTransformer, batch: Tensor, family: str, seed: int) -> Plan:
    """Thresholds amid the scores this batch has, block by block, each in a gap between scores.

    A random quantile between 0.1 and 0.4 for pruning and 0.3 and 0.8 for merging. The float64
    reference only supplies the scores to choose from; it judges nothing.
    """
    rng = np.random.default_rng(seed)
    depth, loaded = len(model.blocks), families.load(family)
    values: dict[str, list[float]] = {kind: [start] * depth for kind, start in _INERT.items()}
    ranges = {"merge": (0.3, 0.8), "prune": (0.1, 0.4)}
    reference = Reference(model, loaded.freeze(values), torch.float64)
    for block in range(depth):
        for step, kind in enumerate(loaded.order()):
            reference.plan = loaded.freeze(values)
            traces = [reference.run(image) for image in batch]
            scores = torch.cat([trace.decisions[block][step].score for trace in traces])
            values[kind][block] = _in_a_gap(scores.numpy(), rng.uniform(*ranges[kind]))
    return loaded.freeze(values)


def _in_a_gap(scores: np.ndarray, quantile: float) -> float:
    """The middle of the widest gap near that quantile of finite scores, float32 in [0, 1]."""
    ordered = np.sort(scores[np.isfinite(scores)])
    if len(ordered) < 2:
        return 0.5
    centre = round(quantile * (len(ordered) - 2))
    low = max(0, centre - 2)
    gaps = np.diff(ordered)[low : centre + 3]
    at = low + int(gaps.argmax())
    return float(np.float32(np.clip((ordered[at] + ordered[at + 1]) / 2, 0.0, 1.0)))
