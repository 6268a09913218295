"""Small random networks of convolutions and attention: MobileViT and EfficientViT of timm."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import onnx
import timm
import torch
from timm.models.byobnet import ByobNet, ByoModelCfg
from timm.models.efficientvit_mit import EfficientVit
from timm.models.mobilevit import _inverted_residual_block, _mobilevit_block
from torch import nn

from ltmp_export.backbones.hybrid.geometry import Hybrid
from ltmp_export.backbones.trace import Trace
from ltmp_export.plan.plan import Plan
from ltmp_export.steps.merge_mask import stages

# Two stages that attend, of 8 x 6 and 4 x 3 tokens; at 0.49 of them 6 x 4 and, of 3 x 2, 2 x 1.
TALL = (64, 48)
RATIO = 0.49


def mobilevit(**kwargs: Any) -> ByobNet:
    """A MobileViT whose two stages have 2 and 1 transformer blocks of 4 heads."""
    config = ByoModelCfg(
        blocks=(
            _inverted_residual_block(d=2, c=8, s=1, br=2.0),
            _mobilevit_block(1, 12, 2, transformer_dim=16, transformer_depth=2, patch_size=2),
            _mobilevit_block(1, 16, 2, transformer_dim=24, transformer_depth=1, patch_size=2),
        ),
        stem_chs=8,
        stem_type="3x3",
        stem_pool="",
        downsample="",
        act_layer="silu",
        num_features=20,
    )
    return _drawn(ByobNet(config, **{"num_classes": 5, "in_chans": 3} | kwargs), 1)


def efficientvit(**kwargs: Any) -> EfficientVit:
    """An EfficientViT whose third and fourth stage have 2 and 1 blocks with attention."""
    own = {"widths": (8, 12, 16, 24, 32), "depths": (1, 2, 1, 2, 1), "head_dim": 8}
    own |= {"head_widths": (40, 48), "num_classes": 5}
    return _drawn(EfficientVit(**own | kwargs), 2)


class Made(NamedTuple):
    """A kind of network, how to make a small one, and the size of its images."""

    kind: str
    make: Callable[..., nn.Module]
    size: tuple[int, int]

    def __str__(self) -> str:
        return self.kind

    def describe(self, model: nn.Module, size: tuple[int, int] | None = None) -> Hybrid:
        """Its geometry."""
        geometry: Hybrid = self.module("describe").describe(model, "small", size or self.size)
        return geometry

    def module(self, name: str) -> ModuleType:
        """A module of its folder."""
        return importlib.import_module(f"ltmp_export.backbones.{self.kind}.{name}")


def named(name: str, **kwargs: Any) -> nn.Module:
    """A model of timm's by name, with random weights."""
    model: nn.Module = _drawn(timm.create_model(name, **kwargs), 4)
    return model


@dataclass(frozen=True)
class Net:
    """A small network, and images for it [3, 3, height, width]."""

    made: Made
    model: nn.Module
    geometry: Hybrid
    images: torch.Tensor

    def traces(self, plan: Plan, images: torch.Tensor | None = None) -> list[Trace]:
        """Each image under a plan, eager."""
        run = self.made.module("eager").run
        shown = self.images if images is None else images
        return [run(self.model, plan, image) for image in shown]

    def logits(self, plan: Plan, images: torch.Tensor | None = None) -> torch.Tensor:
        """[images, classes] likewise."""
        return torch.stack([trace.logits for trace in self.traces(plan, images)])

    def lower(self, plan: Plan, **options: Any) -> onnx.ModelProto:
        """The graph under a plan."""
        tensors = self.model.state_dict() | dict(plan.parameters)
        weights = {name: tensor.numpy() for name, tensor in tensors.items()}
        model: onnx.ModelProto = self.made.module("lower").lower(
            self.geometry, plan, weights, **options
        )
        return model


@functools.cache
def net(made: Made) -> Net:
    """The small network of a kind; do not change it."""
    model = made.make()
    return Net(made, model, made.describe(model), image(made.size, 3))


def trained(name: str, start: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A weight of a mask, from how it starts to what some training may have made of it."""
    drawn = torch.rand(start.shape, generator=generator)
    if name.endswith("mask0"):
        return (start + 0.3 * drawn - 0.1).relu()
    return torch.full_like(start, 0.3) if name.endswith("step") else drawn - 0.5


def planned(geometry: Hybrid, ratio: float, *, hard: bool = False, moved: bool = False) -> Plan:
    """One merge in each stage: masks as training starts, or `moved` from there by some training."""
    steps, weights = stages.of_ratio(geometry, ratio, hard)
    parameters = {name: torch.tensor(value) for name, value in weights.items()}
    generator = torch.Generator().manual_seed(3)
    if moved:
        parameters = {name: trained(name, one, generator) for name, one in parameters.items()}
    return Plan("ltm_transformer", stages.plan_of(geometry, steps).blocks, {}, parameters)


MOBILEVIT = Made("mobilevit", mobilevit, TALL)
EFFICIENTVIT = Made("efficientvit", efficientvit, (128, 96))
ALL = (MOBILEVIT, EFFICIENTVIT)


def _drawn(model: Any, seed: int) -> Any:
    """The model in eval mode with weights that tell cells apart, and means and variances."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            spread = torch.rand(value.shape, generator=generator)
            if name.endswith(("running_var", "norm.weight", "bn.weight")):
                value.copy_(0.5 + spread)
            elif value.ndim < 2 and value.dtype == torch.float32:
                value.add_(spread - 0.5)
            elif value.ndim >= 2:
                value.copy_((spread - 0.5) * 5 / value[0].numel() ** 0.5)
    return model.eval().requires_grad_(False)


def image(size: tuple[int, int], number: int = 1, seed: int = 0) -> torch.Tensor:
    """Images [number, 3, height, width] of smooth colours with noise on them."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((number, 3, 4, 4), generator=generator) * 2 - 1
    smooth = nn.functional.interpolate(coarse, size, mode="bilinear")
    return smooth + 0.2 * torch.randn((number, 3, *size), generator=generator)
