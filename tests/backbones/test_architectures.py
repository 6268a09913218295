"""What model a file holds that is not supported."""

from __future__ import annotations

import pytest
import timm
import torch

from ltmp_export.backbones.vit import features
from ltmp_export.errors import InputError
from ltmp_export.statements import timm_names

NAMES = {
    "vit_base_patch16_siglip_224": [],
    "vit_small_patch14_reg4_dinov2": [],
    "aimv2_large_patch14_224": [],
    "vit_tiny_r_s16_p8_224": [],
    "vit_giant_patch14_dinov2": [],
    "vit_dwee_patch16_reg1_gap_256": [],
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
    with timm_names.without_numbers():
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
    with timm_names.without_numbers():
        weights = timm.create_model(name).state_dict()
    with pytest.raises(InputError, match=f"it looks like {OTHERS[name]}( \\(|;|,)"):
        features.require_plain("c.pth", weights)


def test_a_vit_that_its_name_tells_asks_for_it() -> None:
    """Rotary positions leave no trace in these weights, layer scale has Eva's name."""
    with timm_names.without_numbers():
        model = timm.create_model("vit_small_patch16_rope_ape_224", depth=2)
    told = "state its name of timm's with --model, like vit_small_patch16_rope_ape_224"
    with pytest.raises(InputError, match=told):
        features.require_plain("c.pth", model.state_dict())


def test_names_without_end_take_no_time() -> None:
    """A pickle may hold 16 MiB of them; backtracking on one of these would take hours."""
    made = ["head." * 10**6 + "weight", "a." * 10**6, "layer1.0." + "conv" * 10**6]
    made += [f"blocks.{i}.zz.weight" for i in range(10**5)]
    with pytest.raises(InputError, match="not a plain timm VisionTransformer"):
        features.require_plain("c.pth", dict.fromkeys(made, torch.ones(2, 2)))
