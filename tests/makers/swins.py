"""Small random Swin Transformers, and masks for them."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformer

from ltmp_export.backbones.swin import describe
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images.inputs import Images
from ltmp_export.images.preprocessing import Preprocessing
from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.plan import Plan, dense_plan
from ltmp_export.statements.choices import Choices
from ltmp_export.steps.merge_mask import windows

ARCH = "swin_tiny_patch4_window7_224"  # whose name says what weights do not
RATIO = 0.5  # of windows of 4 x 4 tokens 3 x 3
# Stages of 8 x 12 and 4 x 6 tokens in windows of 4 x 4 and 2 x 2, six of each.
DEFAULTS: dict[str, Any] = {
    "img_size": (16, 24),
    "patch_size": 2,
    "window_size": ((4, 4), (2, 2)),
    "embed_dim": 16,
    "depths": (2, 3),
    "num_heads": (1, 2),
    "num_classes": 5,
}
ALIKE = {"img_size": (32, 32), "window_size": ((4, 4), (4, 4)), "depths": (2, 2)}


@functools.cache
def small(alike: bool = False) -> SwinTransformer:
    """A model of two stages; do not change it. `alike`: windows of one size in both."""
    return model(**ALIKE) if alike else model()


def model(**kwargs: Any) -> SwinTransformer:
    """The same with other arguments of timm's."""
    made = SwinTransformer(**DEFAULTS | kwargs)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in made.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                value.copy_(1 + 0.3 * noise)
            elif name.endswith("bias"):
                value.copy_(0.3 * noise)
            elif name.endswith("table"):
                value.copy_(noise)
            else:
                gain = 1.5 if "qkv" in name else 1.0
                value.copy_(gain * noise / math.sqrt(value[0].numel()))
    return made.eval().requires_grad_(False)


def checkpoint(made: SwinTransformer, plan: Plan | None = None) -> Checkpoint:
    """What `load_checkpoint` would make of it; the dense model by default."""
    geometry = describe.describe(made, "small")
    grey = (0.5,) * geometry.in_chans
    plain = Preprocessing(grey, grey, 0.9, "bicubic")
    plan = plan or dense_plan(geometry.depth)
    return Checkpoint(
        Path("made.pth"), "0" * 64, None, None, plan, geometry, made, plain, None, Choices(),
        (), (), (),
    )  # fmt: skip


def merging(made: SwinTransformer, *, hard: bool, ratio: float = RATIO) -> Checkpoint:
    """One whose masks are as if some training had moved them from where they start."""
    found = checkpoint(made)
    plan = started(describe.describe(made, "small"), ratio=ratio, hard=hard)
    generator = torch.Generator().manual_seed(3)
    for name, value in plan.parameters.items():
        drawn = torch.rand(value.shape, generator=generator)
        if name.endswith("mask0"):
            value.add_(0.5 * drawn)
        else:
            value.copy_(0.5 * drawn if name.endswith("step") else drawn - 0.5)
    return replace(found, plan=plan)


def started(geometry: Geometry, *, hard: bool, ratio: float) -> Plan:
    """Masks as training starts."""
    placed = windows.from_stated(
        "made", geometry, compression_ratio=ratio, merge_at=None, hard=hard, restore=None,
        reduction_target=None,
    )  # fmt: skip
    blocks = tuple(placed.blocks[block] for block in range(geometry.depth))
    parameters = {name: torch.tensor(value) for name, value in placed.parameters.items()}
    return Plan("ltm_transformer", blocks, parameters=parameters)


def images(geometry: Geometry, count: int = 3) -> Images:
    """Noise of rising contrast."""
    generator = torch.Generator().manual_seed(5)
    contrast = torch.linspace(0.3, 2.0, count)[:, None, None, None]
    pixels = contrast * torch.randn((count, *geometry.input_size), generator=generator)
    names = tuple(f"noise {number}" for number in range(count))
    return Images(pixels.numpy(), None, names, "noise")


def save(path: Path, made: SwinTransformer, **more: Any) -> Path:
    """A file as timm's script writes it, with `args` of its own or other tensors in `state`."""
    state = made.state_dict() | more.pop("state", {})
    args = {"img_size": list(made.patch_embed.img_size)} | more.pop("args", {})
    torch.save({"state_dict": state, "arch": ARCH, "args": args} | more, path)
    return path
