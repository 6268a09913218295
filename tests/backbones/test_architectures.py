"""What model a file holds that is not supported, and how weights under other names are renamed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision

from ltmp_export.backbones.vit import features
from ltmp_export.backbones.vit.architectures import RENAMED
from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.statements.choices import Choices
from tests.makers.commands import ltmp

State = dict[str, Any]
TWO_HEADS = Choices(num_heads=2)

NAMES = {
    "vit_base_patch16_siglip_224": [
        "no classifier (head.weight missing)",
    ],
    "vit_small_patch14_reg4_dinov2": ["no classifier (head.weight missing)"],
    "aimv2_large_patch14_224": [
        "no classifier (head.weight missing)",
    ],
    "vit_tiny_r_s16_p8_224": ["a convolutional stem (patch_embed.backbone.conv.weight)"],
    "vit_giant_patch14_dinov2": ["no classifier (head.weight missing)"],
    "vit_dwee_patch16_reg1_gap_256": [
        "differential attention (blocks.0.attn.lambda_q1)",
    ],
    "test_vit_relpos": [
        "relative position bias (blocks.0.attn.rel_pos.mlp.fc1.weight)",
    ],
    "beit_base_patch16_224": [
        "relative position bias (blocks.0.attn.relative_position_bias_table)",
        "biases of q and v alone (blocks.0.attn.q_bias)",
        "layer scale under other names than ls1.gamma (blocks.0.gamma_1)",
    ],
    "deit3_small_patch16_224": [],
    "vit_base_patch16_clip_quickgelu_224": [],
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_feature_of_timms_vits_is_named(name: str) -> None:
    with torch.device("meta"):
        weights = timm.create_model(name, **({"depth": 2} if "vit_" in name else {})).state_dict()
    assert list(features.unsupported(weights)) == NAMES[name]


OTHERS = {
    "resnet18": "a ResNet", "mobilenetv3_small_050": "an EfficientNet, a MobileNet or kin",
    "convnext_atto": "a ConvNeXt", "swinv2_tiny_window8_256": "a Swin Transformer V2",
    "mobilevitv2_050": "a MobileViT of the second version",
    "levit_128s": "a LeViT", "pit_ti_224": "a PiT",
    "cait_xxs24_224": "a CaiT", "xcit_nano_12_p16_224": "an XCiT", "hiera_tiny_224": "a Hiera",
    "maxvit_nano_rw_256": "a MaxViT", "volo_d1_224": "a VOLO", "regnetx_002": "a RegNet",
    "mixer_s32_224": "an MLP-Mixer or ResMLP", "poolformer_s12": "a PoolFormer or kin",
    "repvgg_a0": "a network in stages", "convmixer_768_32": "a network with BatchNorm",
    "beit_base_patch16_224": "a BEiT", "samvit_base_patch16_224": "the image encoder of a SAM",
    "eva02_tiny_patch14_224": "a ViT of timm's Eva class",
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_architectures_of_timm_are_told(name: str) -> None:
    with torch.device("meta"):
        weights = timm.create_model(name).state_dict()
    with pytest.raises(InputError, match=f"it looks like {OTHERS[name]}( \\(|;)"):
        features.require_plain("c.pth", weights)


def test_names_without_end_take_no_time() -> None:
    """A pickle may hold 16 MiB of them; backtracking on one of these would take hours."""
    made = ["head." * 10**6 + "weight", "a." * 10**6, "layer1.0." + "conv" * 10**6]
    made += [f"blocks.{i}.zz.weight" for i in range(10**5)]
    with pytest.raises(InputError, match="not a plain timm VisionTransformer"):
        features.require_plain("c.pth", dict.fromkeys(made, torch.ones(2, 2)))


def renamed(theirs: State, library: str) -> State:
    """A state_dict by the table that the message shows."""
    depth = 1 + max(int(m[1]) for key in theirs if (m := re.search(r"layer[s_.]*(\d+)\.", key)))
    made: State = {}
    for old, new in RENAMED[library].items():
        for block in range(depth if "{i}" in old else 1):
            first, *more = old.replace("{i}", str(block)).split(" + ")
            modules = [first, *(f"{first.rpartition('.')[0]}.{word}" for word in more)]
            for end in ("", ".weight", ".bias", "_weight", "_bias", ".qkv.weight", ".qkv.bias",
                        ".proj.weight", ".proj.bias"):  # fmt: skip
                found = [theirs[module + end] for module in modules if module + end in theirs]
                if found:
                    made[new.replace("{i}", str(block)) + end.replace("_", ".")] = torch.cat(found)
    return made


def test_renaming_torchvisions_vit_as_the_message_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The converted file is taken, and is the same model."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    theirs = torchvision.models.VisionTransformer(32, 8, 3, 2, 64, 128, num_classes=5).eval()
    torch.nn.init.normal_(theirs.heads.head.weight)
    torch.save(theirs.state_dict(), "c.pth")
    told = ltmp("export", "c.pth").stderr
    assert "it looks like a ViT of torchvision (encoder.layers.encoder_layer_0.ln_1" in told
    assert "conv_proj → patch_embed.proj" in told
    torch.save(renamed(theirs.state_dict(), "torchvision"), "d.pth")
    ours = load_checkpoint("d.pth", TWO_HEADS, dense=True)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(ours.model(pixels), theirs(pixels), atol=1e-5)


def names_of(library: str, prefix: str) -> State:
    """A small ViT under a library's names, those of a block in two blocks."""
    made: State = {}
    sizes = {"attn.qkv": (192, 64), "mlp.fc1": (128, 64), "mlp.fc2": (64, 128), "head": (5, 64)}
    for old, new in RENAMED[library].items():
        leaf = new.removeprefix("blocks.{i}.")
        for block in range(2 if "{i}" in old else 1):
            first, *more = old.replace("{i}", str(block)).split(" + ")
            where = "" if new == "head" else prefix
            for word in (first, *(f"{first.rpartition('.')[0]}.{word}" for word in more)):
                module = where + word
                if leaf in ("cls_token", "pos_embed"):
                    made[module] = torch.randn(1, 1 if leaf == "cls_token" else 17, 64)
                elif leaf == "attn":  # of both names the same
                    made |= {f"{module}.qkv.weight": torch.randn(192, 64),
                             f"{module}.qkv.bias": torch.randn(192),
                             f"{module}.proj.weight": torch.randn(64, 64),
                             f"{module}.proj.bias": torch.randn(64)}  # fmt: skip
                else:
                    rows, *columns = sizes.get(leaf, (64, 64) if leaf == "attn.proj" else (64,))
                    columns = [3, 8, 8] if leaf == "patch_embed.proj" else columns
                    rows = 64 if more else rows
                    made[f"{module}.weight"] = torch.randn(rows, *columns)
                    made[f"{module}.bias"] = torch.randn(rows)
    if library == "mmpretrain":  # whose embedding needs no new name
        made |= {f"{prefix}cls_token": torch.randn(1, 1, 64),
                 f"{prefix}pos_embed": torch.randn(1, 17, 64)}  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("library", "prefix"), [("Hugging Face's transformers", "vit."), ("mmpretrain", "backbone.")]
)
def test_renaming_other_vits_as_the_message_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, prefix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    theirs = names_of(library, prefix)
    torch.save(theirs, "c.pth")
    told = ltmp("export", "c.pth").stderr
    assert f"it looks like a ViT of {library} ({prefix}" in told
    assert f"timm has the same model: drop '{prefix}', rename " in told
    bare = {key.removeprefix(prefix): value for key, value in theirs.items()}
    made = renamed(bare, library)
    made |= {key: bare[key] for key in ("cls_token", "pos_embed") if key in bare}
    torch.save(made, "d.pth")
    found = load_checkpoint("d.pth", TWO_HEADS, dense=True)
    assert (found.vit.depth, found.vit.width, found.vit.classes) == (2, 64, 5)
