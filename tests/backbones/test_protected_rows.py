"""Class token, registers, or none before the patches: read from weights, dense as in timm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ltmp_export.backbones.vit.positions import Grid, grid
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.model_file.model import to_onnx
from ltmp_export.plan.vit import Vit
from ltmp_export.runtimes.session import Session
from ltmp_export.statements.choices import Choices
from tests.makers.random_vits import Case, build, images

TOLERANCE = 1e-4  # measured: 3e-6
SIZE = (16, 12)
HEADS = Choices(num_heads=2, image_size=SIZE)

# timm's arguments; the class token's, the registers', and whether positions cover them.
CASES: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "no class token": ({"class_token": False, "global_pool": "avg"}, (0, 0)),
    "no class token, no norm": (
        {"class_token": False, "global_pool": "avg", "fc_norm": False},
        (0, 0),
    ),
    "registers alone": ({"class_token": False, "global_pool": "avg", "reg_tokens": 3}, (3, 3)),
    "registers without positions": (
        {"class_token": False, "global_pool": "avg", "reg_tokens": 1, "no_embed_class": True},
        (1, 1),
    ),
    "DINOv2's": ({"reg_tokens": 4, "no_embed_class": True, "init_values": 1e-5}, (5, 4)),
    "class token, registers": ({"reg_tokens": 2}, (3, 2)),
    "class token, averages": ({"reg_tokens": 1, "global_pool": "avg"}, (2, 1)),
}
Load = Callable[..., Checkpoint]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """What `load_checkpoint` makes of weights in a file."""

    def load(weights: dict[str, Any], choices: Choices = HEADS, **content: Any) -> Checkpoint:
        torch.save({"state_dict": weights, **content}, tmp_path / "model.pth")
        return load_checkpoint(tmp_path / "model.pth", choices, dense=True)

    return load


def require_dense(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Check that files with nothing reduced, of a batch and of one image, give timm's logits."""
    pixels = images(checkpoint.vit, 1, 3)
    with torch.inference_mode():
        expected = model(pixels).numpy()
    for batch in (None, 1):
        session = Session(to_onnx(checkpoint, opset=17, batch_size=batch))
        given = pixels[: batch or 3].numpy()
        np.testing.assert_allclose(session.run(given)[0], expected[: len(given)], atol=TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_dense_is_timms_own(load: Load, name: str) -> None:
    """Weights alone tell all of it but the image size, and the pooling where that is usual.

    One that may as well be a SigLIP is asked for its activation.
    """
    kwargs, (prefix, registers) = CASES[name]
    model, vit = build(Case(name, 3, {"img_size": SIZE, **kwargs}))
    choices = replace(HEADS, act="gelu") if name == "no class token, no norm" else HEADS
    checkpoint = load(model.state_dict(), choices)
    assert (vit.prefix, vit.registers, vit.leading) == (prefix, registers, prefix - registers)
    found = checkpoint.vit
    assert (found.prefix, found.registers, found.pool) == (prefix, registers, vit.pool)
    assert Vit.from_json(found.to_json()) == found
    require_dense(model, checkpoint)


def test_positions_of_all_but_the_registers(load: Load) -> None:
    """As Meta's DINOv2 has them: what is added to the class token becomes part of it."""
    model, _ = build(Case("meta", 4, {"img_size": SIZE, "reg_tokens": 4, "no_embed_class": True}))
    weights = model.state_dict()
    row = torch.randn(1, 1, 48)
    weights["pos_embed"] = torch.cat([row, weights["pos_embed"]], 1)
    weights["cls_token"] = weights["cls_token"] - row
    require_dense(model, load(weights))


def test_no_position_embedding_takes_a_name(load: Load) -> None:
    """Without one a model may as well have positions that weights do not show."""
    name, arguments = "vit_tiny_patch16_224", {"depth": 1, "num_classes": 3, "pos_embed": "none"}
    weights = timm.create_model(name, **arguments).state_dict()
    with pytest.raises(InputError, match="no a position embedding .by name one"):
        load(weights, Choices(), arch=name)
    with pytest.raises(InputError, match="pos_embed missing: nothing tells whether it has no"):
        load(weights, Choices(num_heads=3, image_size=(224, 224)))


def test_described_without_position_embedding() -> None:
    model, vit = build(Case("none", 5, {"img_size": SIZE, "pos_embed": "none", "reg_tokens": 1}))
    assert isinstance(model, VisionTransformer)
    assert (vit.tokens, vit.patches, vit.class_token) == (14, 12, True)


def test_registers_of_several_images_are_refused(load: Load) -> None:
    model, _ = build(Case("reg", 6, {"reg_tokens": 1, "no_embed_class": True}))
    weights = model.state_dict() | {"reg_token": torch.ones(2, 1, 48)}
    with pytest.raises(InputError, match="reg_token is of 2 images"):
        load(weights, Choices(num_heads=2))


def shapes(rows: int, registers: int) -> dict[str, torch.Tensor]:
    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device="meta")

    return {
        "cls_token": empty(1, 1, 8),
        "reg_token": empty(1, registers, 8),
        "pos_embed": empty(1, rows, 8),
        "patch_embed.proj.weight": empty(8, 3, 4, 4),
    }


def test_grids_behind_registers() -> None:
    """Registers have no position in most models: the square tells, unless there are two."""
    for before in (0, 1, 5):
        assert grid(shapes(16 + before, 4), None, None) == Grid(4, 4, (4, 4), before)
    with pytest.raises(InputError, match="state the image size"):
        grid(shapes(9, 4), None, None)  # 2 by 2 patches behind 5 rows, or 3 by 3
    assert grid(shapes(9, 4), None, (12, 12)) == Grid(3, 3, (4, 4), 0)
    with pytest.raises(InputError, match="rows: 5 for the .* before 2x2 patches, or 1 before 4x2"):
        grid(shapes(9, 4), None, (16, 8))
    assert grid(shapes(9, 4), None, None, unplaced=True) == Grid(3, 3, (4, 4), 0)
