"""Tiny ViTs with rotary positions or a relative bias that hold the operators of their files."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ltmp_export.backbones.positioned.biases import OF_CLASS
from ltmp_export.backbones.positioned.geometry import Positioned
from ltmp_export.backbones.positioned.lower import lower
from ltmp_export.plan import positions
from ltmp_export.plan.linears import EMBEDDING
from ltmp_export.plan.plan import Plan
from ltmp_export.precision.formats import Precision
from ltmp_export.steps.fit.step import Fit
from ltmp_export.steps.fuse.step import Fuse
from ltmp_export.steps.merge.step import Merge
from ltmp_export.steps.merge_most.step import MergeMost
from ltmp_export.steps.prune.step import Prune
from ltmp_export.steps.prune_least.step import PruneLeast

_LEARNED = (Merge(0.5), Prune(0.1))
_BLOCKS = (
    (_LEARNED, ()),
    ((*_LEARNED, Fit(8)), (*_LEARNED, Fit(8))),
    ((MergeMost(2), PruneLeast(2)), ()),
    ((Fuse(0.5),), ()),
)
_SIDE = 16  # of a table of angles


def geometry(made: type[Positioned], kind: str, activation: str) -> Positioned:
    """Of them."""
    return made(
        "probe", image_size=(8, 8), patch_size=(2, 2), in_chans=1, classes=2, depth=2, width=8,
        mlp_width=8, heads=2, head_width=4, norm_eps=1e-6, activation=activation, pool="token",
        positions=kind,
    )  # fmt: skip


def models(net: Positioned, opset: int, precision: Precision) -> Iterator[ModelProto]:
    """Learned thresholds, also under a budget, fixed numbers, and a fused token."""
    merged = positions.MEAN if net.positions == positions.ROTARY else positions.DESTINATION
    for blocks in _BLOCKS:
        yield lower(
            net, Plan("probe", blocks, merged_position=merged), _weights(net), opset=opset,
            batch_size=None, token_counts=True, precision=precision,
        )  # fmt: skip


def _weights(net: Positioned) -> dict[str, NDArray[np.float32]]:
    """All there are, by timm name and those of tables."""
    width, turns = net.width, net.head_width // 2
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, width)}
    shapes["pos_embed"] = (1, net.tokens, width)
    for layer in net.linears():
        shapes[f"{layer.path}.weight"] = (layer.outs, layer.ins)
        shapes[f"{layer.path}.bias"] = (layer.outs,)
    shapes[f"{EMBEDDING}.weight"] = (width, net.in_chans, *net.patch_size)
    if net.positions == positions.ROTARY:
        shapes["rope.sin"] = shapes["rope.cos"] = (1, net.patches + 1, turns)
        shapes["rope.angles"] = (1, 3, _SIDE)
    pairs = (2 * net.grid[0] - 1) * (2 * net.grid[1] - 1) + OF_CLASS
    norms = ["norm"]
    for block in (f"blocks.{index}" for index in range(net.depth)):
        norms += [f"{block}.norm1", f"{block}.norm2"]
        shapes |= {f"{block}.gamma_1": (width,), f"{block}.gamma_2": (width,)}
        del shapes[f"{block}.attn.qkv.bias"]
        shapes |= {f"{block}.attn.q_bias": (width,), f"{block}.attn.v_bias": (width,)}
        if net.positions == positions.RELATIVE:
            shapes[f"{block}.attn.relative_position_bias_table"] = (pairs, net.heads)
    for path in norms:
        shapes |= {f"{path}.weight": (width,), f"{path}.bias": (width,)}
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
