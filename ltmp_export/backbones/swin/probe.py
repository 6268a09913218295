"""Tiny Swin Transformers that hold the operators of their files, see `runtimes.opsets`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ltmp_export.backbones.swin.geometry import Swin
from ltmp_export.backbones.swin.lower import lower
from ltmp_export.plan.linears import EMBEDDING
from ltmp_export.plan.plan import Plan
from ltmp_export.precision.formats import Precision
from ltmp_export.steps.merge_mask.step import MergeMask


def geometry(activation: str) -> Swin:
    """Of them."""
    return Swin(
        "probe", image_size=(8, 8), patch_size=(1, 1), in_chans=1, classes=2, depths=(2, 2),
        widths=(8, 8), mlp_widths=(8, 8), heads=(2, 2), windows=((4, 4), (2, 2)), norm_eps=1e-5,
        activation=activation,
    )  # fmt: skip


def models(opset: int, precision: Precision, activation: str) -> Iterator[ModelProto]:
    """One for any batch, one for single images; a block merges hard, another softly."""
    swin = geometry(activation)
    places = swin.places()
    soft, hard = (
        MergeMask(
            f"{place.path}.ltm", f"mask{stage}", place.grid[0] ** 2, 2, place.sets, hard=hard,
            restore=True,
        )
        for stage, place, hard in ((0, places[1], False), (1, places[3], True))
    )  # fmt: skip
    plan = Plan("probe", ((), (soft,), (), (hard,)))
    for batch_size in (None, 1):
        yield lower(
            swin, plan, _weights(swin), opset=opset, batch_size=batch_size, token_counts=True,
            precision=precision,
        )  # fmt: skip


def _weights(swin: Swin) -> dict[str, NDArray[np.float32]]:
    """All there are, by timm name and that of the steps."""
    shapes: dict[str, tuple[int, ...]] = {"mask0": (16, 2), "mask1": (4, 2)}
    norms = {"patch_embed.norm": 8, "layers.1.downsample.norm": 32, "norm": 8}
    for layer in swin.linears():
        shapes[f"{layer.path}.weight"] = (layer.outs, layer.ins)
        shapes[f"{layer.path}.bias"] = (layer.outs,)
    shapes[f"{EMBEDDING}.weight"] = (8, 1, 1, 1)
    for block in swin.blocks():
        pairs = (2 * block.window[0] - 1) ** 2
        shapes[f"{block.path}.attn.relative_position_bias_table"] = (pairs, block.heads)
        shapes |= {f"{block.path}.ltm.center": (8,), f"{block.path}.ltm.step": (1,)}
        norms |= {f"{block.path}.norm1": 8, f"{block.path}.norm2": 8}
    for path, length in norms.items():
        shapes |= {f"{path}.weight": (length,), f"{path}.bias": (length,)}
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
