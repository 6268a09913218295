"""Files of the zoo on other grids, seeds and rows in front, against an oracle.

Its models count from the patches that they have; topk and evit alone from 196. Distilled models and
those without class token are beyond its code: **decided here** that all rows in front pass by.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.plan.vit import Vit
from ltmp_export.statements.choices import Choices
from tests.makers import random_vits
from tests.makers.examples import dpcknn_shapes, drawn, normed, predictors, slimming
from tests.makers.random_vits import Case
from tests.oracles import agreement
from tests.oracles import oracle_mixtures as mixtures

# 25 patches: of 0.6 of them 15 and 9. A grid of odd sides is one patch off the middle.
MADE = (15, 9)
RING = [row * 5 + column for row in range(1, 5) for column in range(1, 5)]
OTHERS: dict[str, dict[str, Any]] = {
    "sinkhorn": {"sinkhorn_eps": 0.3, "cluster_iters": 4},
    "dpcknn": {"k_neighbors": 4, "equal_weight": False},
    "kmedoids": {"cluster_iters": 2, "equal_weight": False},
    "heuristic": {"heuristic_pattern": "linf", "min_radius": 1.0, "not_contiguous": True},
}
FRONT: dict[str, dict[str, Any]] = {
    "class token": {},
    "distilled": {"distilled": True},
    "none": {"class_token": False, "global_pool": "avg", "fc_norm": True},
}
CASES = (
    ("dyvit", "distilled"), ("sit", "none"), ("sinkhorn", "distilled"), ("patchmerger", "none"),
    ("dpcknn", "none"), ("kmedoids", "distilled"), ("heuristic", "class token"),
)  # fmt: skip


def layers(method: str) -> dict[str, Tensor]:
    """Those of a method for models of width 48."""
    mergers: dict[str, tuple[int, ...]] = {}
    for number, made in enumerate(MADE):
        name = f"cluster_layers.{number}"
        mergers |= {f"{name}.queries": (made, 48)}
        mergers |= {f"{name}.norm.{part}": (48,) for part in ("weight", "bias")}
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "dyvit": predictors(48, 2),
        "sit": slimming(48, *MADE),
        "sinkhorn": {f"cluster_layers.{i}.v": (n, 48) for i, n in enumerate(MADE)},
        "patchmerger": mergers,
        "dpcknn": dpcknn_shapes(48),
    }
    return normed(drawn(shapes.get(method, {})), ("0.weight", "norm.weight"))


def changes(method: str) -> dict[int, mixtures.Change]:
    made = enumerate(MADE)
    found = {
        "dyvit": lambda: [mixtures.predicted(i, n, 1e-6) for i, n in made],
        "sit": lambda: [mixtures.slimmed(i) for i, _ in made],
        "sinkhorn": lambda: [mixtures.transported(i, 0.3, 4) for i, _ in made],
        "patchmerger": lambda: [mixtures.merged(i) for i, _ in made],
        "dpcknn": lambda: [mixtures.clustered(i, n, 4, True) for i, n in made],
        "kmedoids": lambda: [mixtures.middles(n, 2) for n in MADE],
        "heuristic": lambda: [mixtures.ring(RING), mixtures.ring([0, 1, 2, 4, 5, 6, 8, 9, 10])],
    }
    return dict(zip((1, 3), found[method](), strict=True))


def file(path: Path, method: str, weights: dict[str, Tensor]) -> Path:
    args = argparse.Namespace(
        model=f"{method}_tiny_patch4_20", reduction_loc=[1, 3], keep_rate=[0.6], model_ema=False,
        **OTHERS.get(method, {}),
    )  # fmt: skip
    torch.save({"model": weights, "args": args, "ema_best": False}, path / "c.pth")
    return path / "c.pth"


def model(front: str) -> tuple[VisionTransformer, Vit]:
    sides = {"img_size": (20, 20), "depth": 4}
    return random_vits.build(Case("zoo", 41, sides | FRONT[front]))


@pytest.mark.parametrize(("method", "front"), CASES)
def test_a_file_is_the_oracle(tmp_path: Path, method: str, front: str) -> None:
    plain, vit = model(front)
    weights = dict(plain.state_dict()) | layers(method)
    one = load_checkpoint(file(tmp_path, method, weights), Choices(num_heads=2))
    images = random_vits.images(vit, 7, 4)
    numbers = {name: value.numpy() for name, value in weights.items()}
    expected = [
        mixtures.run_before(
            numbers, image.numpy(), heads=2, before=changes(method), pool=vit.pool
        )
        for image in images
    ]  # fmt: skip
    agreement.agree(agreement.of(one, images, 17), expected, agreement.decided(expected))


def test_whose_patches_are_counted(tmp_path: Path) -> None:
    """ToMe's r of the grid's; topk has 196 written in it, of which 25 patches cannot keep 117."""
    weights = dict(model("class token")[0].state_dict())
    heads = Choices(num_heads=2)
    tome = load_checkpoint(file(tmp_path, "tome", weights), heads)
    assert tome.plan.counts(26, 1) == (26, 16, 16, 10)
    with pytest.raises(InputError, match="is to keep 117 of 25 patches"):
        load_checkpoint(file(tmp_path, "topk", weights), heads)
    resized = replace(heads, image_size=(24, 24))
    made = load_checkpoint(file(tmp_path, "sit", weights | layers("sit")), resized)
    assert made.plan.counts(37, 1) == (37, 16, 16, 10)  # its layers make no more of more patches
