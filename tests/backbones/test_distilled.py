"""Distilled DeiT: two tokens before the patches, two heads whose mean counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from ltmp_export.backbones.vit.build import build
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.model_file.model import to_onnx
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.vit import Vit
from ltmp_export.reference import Reference
from ltmp_export.runtimes.session import Session
from ltmp_export.statements.choices import Choices
from ltmp_export.steps.prune.step import Prune
from ltmp_export.timing.literal import LiteralViT
from tests.makers.distilled import distilled
from tests.makers.stated import says

TOLERANCE = 1e-4  # measured: 2e-6
HEADS = Choices(num_heads=4)
Load = Callable[..., Checkpoint]


def images(count: int, height: int = 24, width: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, height, width, generator=generator)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """What `load_checkpoint` makes of a model's weights in a file."""

    def load(model: nn.Module, choices: Choices = HEADS, **content: Any) -> Checkpoint:
        torch.save({"state_dict": model.state_dict(), **content}, tmp_path / "model.pth")
        return load_checkpoint(tmp_path / "model.pth", choices, dense=True)

    return load


@torch.inference_mode()
def wanted(model: nn.Module, pixels: Tensor) -> np.ndarray:
    logits: np.ndarray = model(pixels).numpy()
    return logits


@pytest.mark.parametrize(
    "changed",
    [{}, {"no_embed_class": True}, {"qkv_bias": False, "init_values": 0.1, "qk_norm": True}],
    ids=["plain", "patches only have positions", "features"],
)
def test_it_is_timms_own(load: Load, changed: dict[str, Any]) -> None:
    """The reference, what one would try first, and the exported form agree with timm's forward."""
    model = distilled(**changed)
    checkpoint = load(model, replace(HEADS, image_size=(24, 24)))
    assert (checkpoint.vit.prefix, checkpoint.vit.tokens, checkpoint.vit.classifiers) == (2, 11, 2)
    pixels = images(3)
    expected = wanted(model, pixels)
    reference = Reference(checkpoint.model, checkpoint.plan)
    found = np.stack([reference.run(image).logits for image in pixels])
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    keeps_all = Plan("ltp", ((Prune(0.0),),) * 2)
    literal = LiteralViT(checkpoint.model, keeps_all).eval()
    np.testing.assert_allclose(wanted(literal, pixels[:1]), expected[:1], atol=TOLERANCE)
    session = Session(to_onnx(checkpoint, opset=17))
    (logits,) = session.run(pixels.numpy())
    np.testing.assert_allclose(logits, expected, atol=TOLERANCE)


@pytest.mark.parametrize("opset", [16, 17, 20])
@pytest.mark.parametrize("batch_size", [None, 1])
def test_exported(load: Load, opset: int, batch_size: int | None) -> None:
    model = distilled()
    proto = to_onnx(load(model), opset=opset, batch_size=batch_size, token_counts=True)
    session = Session(proto)
    for count in (1, 3) if batch_size is None else (1,):
        logits, counts = session.run(images(count).numpy())
        np.testing.assert_allclose(logits, wanted(model, images(count)), atol=TOLERANCE)
        np.testing.assert_array_equal(counts, np.full((count, 2), 11))


def test_both_heads_matter(load: Load) -> None:
    """A model whose distillation token or head is forgotten would differ by far."""
    model, pixels = distilled(), images(1)
    whole = wanted(model, pixels)
    for name in ("dist_token", "head_dist.weight", "head.weight"):
        state = {**model.state_dict(), name: torch.zeros_like(model.state_dict()[name])}
        other = distilled()
        other.load_state_dict(state)
        assert np.abs(wanted(other, pixels) - whole).max() > 100 * TOLERANCE


def test_another_image_size(load: Load) -> None:
    """The rows of both tokens stay, those of the patches are resampled as timm does it."""
    model = distilled()
    checkpoint = load(model, Choices(num_heads=4, image_size=(32, 40)))
    larger = distilled(img_size=(32, 40))
    resampled = resample_abs_pos_embed(model.pos_embed, [4, 5], [3, 3], num_prefix_tokens=2)
    larger.load_state_dict({**model.state_dict(), "pos_embed": resampled})
    (warning,) = checkpoint.warnings
    assert warning.startswith("position embedding resized from 3x3 to 4x5 patches")
    (logits,) = Session(to_onnx(checkpoint, opset=17)).run(images(2, 32, 40).numpy())
    np.testing.assert_allclose(logits, wanted(larger, images(2, 32, 40)), atol=TOLERANCE)


def test_a_name_tells_heads_and_size(load: Load) -> None:
    name = "deit_tiny_distilled_patch16_224"
    model = timm.create_model(name, depth=1, num_classes=3).eval()
    checkpoint = load(model, Choices(), arch=name)
    assert (checkpoint.vit.heads, checkpoint.vit.tokens) == (3, 198)
    (logits,) = Session(to_onnx(checkpoint, opset=17)).run(images(1, 224, 224).numpy())
    np.testing.assert_allclose(logits, wanted(model, images(1, 224, 224)), atol=TOLERANCE)


def test_a_name_that_is_not_distilled_is_refused(load: Load) -> None:
    model = timm.create_model("deit_tiny_distilled_patch16_224", depth=1, num_classes=3)
    with pytest.raises(InputError, match="deit_tiny_patch16_224 .arch.: a distillation token"):
        load(model, Choices(), arch="deit_tiny_patch16_224")


def changed(key: str, value: Tensor | None) -> dict[str, Tensor]:
    state = {**distilled().state_dict(), key: value}
    return {key: value for key, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (changed("dist_token", None), "11 rows, which is no square of patches"),
        (changed("dist_token", torch.ones(32)), "dist_token has shape .32,.; a timm ViT has 3"),
        (changed("cls_token", None), "11 rows, which is no square of patches"),
        (changed("head_dist.bias", None), "1 missing .head_dist.bias"),
        (changed("head_dist.weight", torch.ones(4, 32)), "1 misshapen .head_dist.weight .4, 32"),
        (
            changed("reg_token", torch.ones(1, 4, 32)),
            "not supported: register tokens beside a dist",
        ),
        (changed("fc_norm.weight", torch.ones(32)), "1 missing .fc_norm.bias., 2 unexpected"),
    ],
)
def test_refused(weights: dict[str, Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(weights, None, says(4))


def test_geometry_as_json() -> None:
    vit = build(distilled().state_dict(), None, says(4)).vit
    assert Vit.from_json(json.loads(json.dumps(vit.to_json()))) == vit
    earlier = {key: value for key, value in asdict(vit).items() if key != "prefix"}
    assert (Vit.from_json(earlier).prefix, Vit.from_json(earlier).tokens) == (1, 10)


@pytest.mark.parametrize(
    ("prefix", "pool"), [(0, "token"), (2, "avg"), (3, "token"), (-1, "avg"), (True, "token")]
)
def test_geometry_that_contradicts_itself(prefix: Any, pool: str) -> None:
    stated = build(distilled().state_dict(), None, says(4)).vit.to_json()
    with pytest.raises(ValueError, match="prefix tokens with"):
        Vit.from_json({**stated, "prefix": prefix, "pool": pool})
    with pytest.raises(ValueError, match="1 of them registers"):
        Vit.from_json({**stated, "registers": 1, "pool": "avg", "prefix": prefix and 0})
