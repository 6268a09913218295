"""Which architecture the weights are: from shapes, keys and the name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.statements.choices import Choices
from tests.conftest import DIGITS_LTMP, state_of
from tests.makers.make_checkpoint import random_vit

Content = dict[str, Any]
Write = Callable[..., Path]


def test_unknown_model_name_suggests() -> None:
    with pytest.raises(InputError, match="did you mean .*deit_small"):
        load_checkpoint(DIGITS_LTMP, Choices(model="deit_smal_patch16_224"))


def test_geometry_that_shapes_do_not_tell_is_asked_for(write: Write) -> None:
    narrow = random_vit("vit", 0, img_size=(16, 12), patch_size=4, embed_dim=48, depth=2,
                        num_heads=3, num_classes=5)  # fmt: skip
    path = write(state_of(narrow, 2))
    with pytest.raises(InputError, match="13 rows, which is no .* fitting are 16x12, 12x16$"):
        load_checkpoint(path)
    with pytest.raises(InputError, match="is no square of patches .*, and 8x8 would have"):
        load_checkpoint(path, Choices(image_size=(8, 8)))
    with pytest.raises(InputError, match="number of heads .width 48.; state --num-heads"):
        load_checkpoint(path, Choices(image_size=(16, 12)))
    with pytest.raises(InputError, match="5 heads .--num-heads. do not divide"):
        load_checkpoint(path, Choices(image_size=(16, 12), num_heads=5))
    found = load_checkpoint(path, Choices(image_size=(16, 12), num_heads=3))
    assert (found.vit.image_size, found.vit.heads) == ((16, 12), 3)


def test_a_square_without_the_class_token_is_asked_for(write: Write) -> None:
    model = random_vit("vit", 0, img_size=(16, 8), patch_size=4, embed_dim=64, depth=1,
                       num_heads=1, num_classes=5)  # fmt: skip
    path = write(state_of(model, 1))  # 4 x 2 patches and a class token: 9 rows
    with pytest.raises(InputError, match="are 16x8, 8x16, 12x12 if those tokens have none"):
        load_checkpoint(path, Choices(num_heads=1))
    found = load_checkpoint(path, Choices(num_heads=1, image_size=(16, 8)))
    assert found.vit.image_size == (16, 8)
    assumed = load_checkpoint(path, Choices(assume_defaults=True))
    assert (assumed.vit.image_size, assumed.vit.heads) == ((12, 12), 1)


def test_features_follow_from_keys(write: Write) -> None:
    features = {"qk_norm": True, "init_values": 0.1, "pre_norm": True, "global_pool": "avg"}
    model = random_vit("vit", 0, img_size=20, patch_size=5, embed_dim=32, depth=2, num_heads=4,
                       num_classes=5, mlp_ratio=2.5, qkv_bias=False, **features)  # fmt: skip
    path = write(state_of(model, 2))
    with pytest.raises(InputError, match="the activation .* state --act gelu.* --norm-eps"):
        load_checkpoint(path)  # of a norm before the blocks
    found = load_checkpoint(path, Choices(act="gelu", norm_eps=1e-6))
    assert (found.vit.heads, found.vit.mlp_width, found.vit.pool) == (4, 80, "avg")
    images = torch.randn(3, 3, 20, 20)
    with torch.inference_mode():
        torch.testing.assert_close(found.model(images), model.eval()(images))


def test_known_name_gives_what_shapes_do_not(write: Write) -> None:
    name = "vit_base_patch32_clip_224"  # pre-norm, LayerNorm eps 1e-5, 12 heads, its own mean
    model = random_vit(name, 0, num_classes=3)
    found = load_checkpoint(write(state_of(model, 12) | {"arch": f"ltp_{name}"}))
    assert (found.vit.name, found.vit.heads, found.vit.norm_eps) == (name, 12, 1e-5)
    assert found.preprocessing.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert found.assumed == {"pool": "token"}  # arguments of its training are not there


def test_weights_of_another_depth_than_the_name_decide(write: Write) -> None:
    name = "deit_tiny_patch16_224"
    model = random_vit(name, 0, depth=2, patch_size=32, num_classes=3)
    found = load_checkpoint(write(state_of(model, 2) | {"arch": f"ltp_{name}"}))
    assert (found.vit.depth, found.vit.patch_size) == (2, (32, 32))
    assert found.warnings == (
        f"not in all as {name} (arch) has it: depth 2 (12), patches 32x32 (16x16), classes 3 "
        "(1000); the weights decide",
    )


def test_what_is_not_supported_is_refused_by_name(write: Write) -> None:
    name = "deit_tiny_patch16_224"
    saved = state_of(random_vit(name, 0, depth=1, num_classes=2), 1)
    saved["state_dict"] |= {"blocks.0.attn.gate.weight": torch.ones(192, 192)}
    with pytest.raises(InputError, match=r"gated attention \(blocks.0.attn.gate.weight"):
        load_checkpoint(write(saved | {"arch": f"ltp_{name}"}))


def test_a_feature_of_timm_the_reference_lacks_is_noticed(
    content: Content, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = VisionTransformer.forward_head
    monkeypatch.setattr(VisionTransformer, "forward_head", lambda s, x: plain(s, x) * 1.01)
    with pytest.raises(InputError, match="timm's own forward .* a feature that is not supported"):
        load_checkpoint(write(content))
