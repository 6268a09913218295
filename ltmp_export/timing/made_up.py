"""A model of made-up weights: as fast as a trained one of its geometry, and good for nothing else.

What a reduced model costs depends on how many tokens it keeps, so scores must be spread as those of
a trained model are: with the weights that training starts from, attention is uniform, all tokens
are as important, and which of them go is a matter of rounding.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ltmp_export import families
from ltmp_export.backbones.vit.describe import describe
from ltmp_export.calibration import quantiles
from ltmp_export.calibration.quantiles import Shares
from ltmp_export.calibration.search import Trial, search
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images.inputs import Images
from ltmp_export.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from ltmp_export.plan.plan import Plan, dense_plan
from ltmp_export.plan.work import executed_share
from ltmp_export.statements import timm_names
from ltmp_export.statements.choices import Choices
from ltmp_export.training.forms import ALIGNED
from ltmp_export.training.model import MaskedVit

TOLERANCE, TRIALS = 0.01, 6  # of the search for thresholds, which ends at either
_SHARES = Shares(merge=0.5, schedule="even")
_BRANCH = 0.5  # what a block adds to a token, as part of what it is given
_SALIENCY = 0.8  # what a token's own salience adds to the logits of attention


def checkpoint(name: str, seed: int = 0, **kwargs: Any) -> Checkpoint:
    """A plain ViT of timm's with weights drawn from a seed, nothing reduced.

    Nothing is downloaded, no file is written, and the global random state stays as it is.

    Args:
        name: timm's name.
        seed: Of the weights.
        kwargs: For timm's model.
    """
    with timm_names.without_numbers():
        model: VisionTransformer = timm.create_model(name, **kwargs)
    model.to_empty(device="cpu").eval().requires_grad_(False)
    _draw(model, torch.Generator().manual_seed(seed))
    geometry = describe(model, name)
    return Checkpoint(
        path=Path(name),
        sha256="",
        base_sha256=None,
        arch=None,
        plan=dense_plan(geometry.depth),
        geometry=geometry,
        model=model,
        preprocessing=Preprocessing(IMAGENET_MEAN, IMAGENET_STD, 1.0, "bicubic"),
        label_names=None,
        choices=Choices(model=name),
        found=(f"weights made up from seed {seed}",),
        notes=(),
        warnings=(),
    )


def _draw(model: VisionTransformer, generator: torch.Generator) -> None:
    """Give a layer's outputs unit variance, tokens places of their own, and keys their salience."""
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        if value.ndim == 1:  # norms and biases
            value.copy_(
                torch.ones_like(noise) if "norm" in name and "weight" in name else noise / 9
            )
        elif name.endswith("weight"):
            branch = _BRANCH if name.endswith(("attn.proj.weight", "mlp.fc2.weight")) else 1.0
            value.copy_(noise * (branch / math.sqrt(value[0].numel())))
        else:  # tokens and positions
            value.copy_(noise / 2)
    for block in model.blocks:
        _make_salient(block.attn, generator)


def _make_salient(attn: Any, generator: torch.Generator) -> None:
    """Let all queries and heads look for one direction of the tokens: it makes them important."""
    qkv = attn.qkv
    heads, width = qkv.in_features // attn.head_dim, qkv.in_features
    sought = torch.randn(heads, attn.head_dim, generator=generator)  # [H, D]
    along = sought / sought.norm(dim=1, keepdim=True)
    salience = torch.randn(width, generator=generator) / math.sqrt(width)  # [C]
    keys = qkv.weight.view(3, heads, -1, width)[1]  # [H, D, C]
    keys += _SALIENCY * along[:, :, None] * salience
    qkv.bias.view(3, heads, -1)[0] += sought


def at_rate(source: Checkpoint, family: str, rate: int) -> Checkpoint:
    """The same model under a family that takes a fixed number of tokens in every block."""
    method = families.load(family)
    scalars = dict.fromkeys(method.counts, [rate] * source.vit.depth)
    return replace(source, plan=method.freeze(scalars, source.vit.prefix))


def at_share(source: Checkpoint, family: str, share: float, images: Images) -> Checkpoint:
    """The same model with thresholds that leave a share of the dense multiply-accumulates.

    Args:
        source: The model, nothing reduced.
        family: One with learned thresholds.
        share: What is to be left, mean over the images; it ends within 0.01 of it, or as near as
            a few trials come.
        images: What scores are taken from, and tokens counted on.
    """
    method, vit = families.load(family), source.vit
    pixels = torch.from_numpy(images.pixels)

    def model(thresholds: dict[str, list[float]]) -> MaskedVit:
        return MaskedVit(source.model, method, thresholds, ALIGNED, plan=source.plan).eval()

    walk = quantiles.Walk(model(dict.fromkeys(method.scalars, [0.5] * vit.depth)), pixels)

    @torch.inference_mode()
    def attempt(intensity: float) -> Trial[Plan]:
        found = quantiles.thresholds(
            lambda taken: [walk.look(taken)], vit.depth, method.order(), _SHARES, intensity
        )
        counts: Tensor = model(found)(pixels).counts
        left = executed_share(vit, source.plan, counts.tolist())
        return Trial(intensity, left, method.freeze(found, vit.prefix))

    start = quantiles.expected(vit, _SHARES, share)
    best = search(attempt, 0.0, 0.95, share, TOLERANCE, start, TRIALS)
    return replace(source, plan=best.result)
