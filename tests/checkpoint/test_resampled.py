"""Files with positions for large images, exported for small ones: timm's model of that size."""

from __future__ import annotations

import copy
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.statements.choices import Choices
from tests.makers.library_numbers import images, numbers
from tests.tolerances import OTHER_LIBRARY

SMALL = (224, 224)

# By timm's name: the side that its positions are for.
MODELS = {
    "vit_small_patch14_dinov2": 518,
    "vit_small_patch14_reg4_dinov2": 518,
    "deit_tiny_distilled_patch16_224": 384,  # a distillation token
    "vit_medium_patch16_gap_256": 384,  # no class token
    "eva02_tiny_patch14_224": 336,  # rotary and learned positions
    "vit_small_patch16_rope_224": 384,  # rotary ones alone
    "beit_base_patch16_224": 384,  # relative ones
}


def require_timms(path: Path, name: str, state: dict[str, Any], choices: Choices) -> None:
    """Check that the file at `path` is timm's model of 224 pixels with this state_dict."""
    theirs = timm.create_model(name, img_size=SMALL, depth=1, num_classes=3).eval()
    module = importlib.import_module(type(theirs).__module__)
    if hasattr(module, "checkpoint_filter_fn"):
        theirs.load_state_dict(module.checkpoint_filter_fn(copy.deepcopy(state), theirs))
    else:  # DeiT's filter is the ViT's
        vit = importlib.import_module("timm.models.vision_transformer")
        theirs.load_state_dict(vit.checkpoint_filter_fn(copy.deepcopy(state), theirs))
    found = load_checkpoint(path, choices, dense=True)
    assert found.geometry.image_size == SMALL
    pixels = torch.from_numpy(images(SMALL[0], 1))
    with torch.inference_mode():
        expected = theirs(pixels)
        worst = (found.model(pixels) - expected).abs().max() / expected.abs().max()
    assert worst < OTHER_LIBRARY, worst


@pytest.mark.filterwarnings("ignore::UserWarning")  # of timm, resampling relative tables
@pytest.mark.parametrize("name", MODELS)
def test_positions_of_another_size(tmp_path: Path, name: str) -> None:
    large = timm.create_model(name, img_size=MODELS[name], depth=1, num_classes=3)
    state = drawn(large.state_dict())
    args = {"model": name, "img_size": MODELS[name]}
    torch.save({"state_dict": state, "arch": name, "args": args}, tmp_path / "c.pth")
    require_timms(tmp_path / "c.pth", name, state, Choices(image_size=SMALL))


def drawn(state: dict[str, Any]) -> dict[str, Any]:
    """Other numbers for the parameters; tables of places stay."""
    floats = {k: v.shape for k, v in state.items() if v.is_floating_point() and "freqs" not in k}
    return {**state, **{k: torch.from_numpy(v) for k, v in numbers(floats).items()}}


def test_hugging_faces_dinov2_of_518_pixels(tmp_path: Path) -> None:
    """Its file says 518, its processor makes images of 224."""
    name = "vit_small_patch14_dinov2"
    model = timm.create_model(name, img_size=518, depth=1, num_classes=3)
    state = drawn(model.state_dict())
    theirs: dict[str, Any] = {}
    for key, value in state.items():
        parts = {"attn.qkv": value.chunk(3)} if "attn.qkv" in key else {"": [value]}
        ((inner, tensors),) = parts.items()
        leaves = ("query", "key", "value") if inner else ("",)
        for leaf, tensor in zip(leaves, tensors, strict=True):
            theirs[renamed(key, leaf)] = tensor.contiguous()
    save_file(theirs, tmp_path / "model.safetensors")
    config = {
        "architectures": ["Dinov2Model"], "model_type": "dinov2", "hidden_size": 384,
        "num_attention_heads": 6, "num_hidden_layers": 1, "image_size": 518, "patch_size": 14,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    require_timms(tmp_path, name, state, Choices(image_size=SMALL))


def renamed(key: str, leaf: str) -> str:
    """Hugging Face's name of one of timm's, of `leaf` where it has three for one."""
    for ours, theirs in (
        ("blocks.", "encoder.layer."), ("cls_token", "embeddings.cls_token"),
        ("pos_embed", "embeddings.position_embeddings"),
        ("attn.qkv", f"attention.attention.{leaf}"),
        ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
        ("attn.proj", "attention.output.dense"), ("ls1.gamma", "layer_scale1.lambda1"),
        ("ls2.gamma", "layer_scale2.lambda1"), ("head.", "classifier."),
    ):  # fmt: skip
        key = key.replace(ours, theirs)
    return f"layernorm.{key.removeprefix('norm.')}" if key.startswith("norm.") else key
