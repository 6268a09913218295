"""Configurations and names that say something else than the weights, or more than is usual."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.statements.choices import Choices
from tests.checkpoint.test_libraries import folder
from tests.documents.libraries import ROWS
from tests.makers import positioned

CONFIG = "open_clip_config.json"
HUGGING_FACES = {row.fixture: row for row in ROWS if not row.fixture.startswith("open_clip")}
TOWERS = {row.fixture: row for row in ROWS if row.fixture.startswith("open_clip")}


def tower(path: Path, fixture: str, **vision: Any) -> Path:
    """An open_clip folder whose configuration of the tower says this, too."""
    folder(TOWERS[fixture].recorded(), path)
    told = json.loads((path / CONFIG).read_text())
    told["model_cfg"]["vision_cfg"] |= vision
    told["model_cfg"]["quick_gelu"] = False
    (path / CONFIG).write_text(json.dumps(told))
    return path


@pytest.mark.parametrize(
    ("kwargs", "act"),
    [({"approximate": "tanh"}, "gelu_tanh"), ({"approximate": "none"}, "gelu"), ({}, "gelu")],
)
def test_open_clips_activation_has_arguments(
    kwargs: dict[str, str], act: str, tmp_path: Path
) -> None:
    path = tower(tmp_path, "open_clip_own", act_kwargs=kwargs)
    assert load_checkpoint(path, dense=True).vit.activation == act


@pytest.mark.parametrize(
    ("fixture", "vision", "said"),
    [
        ("open_clip_own", {"act_kwargs": {"inplace": True}}, 'the activation "gelu of'),
        ("open_clip_own", {"width": 64}, "says width 64, its weights have 32"),
        ("open_clip_own", {"layers": 3}, "says layers 3, its weights have 2"),
        ("open_clip_own", {"patch_size": 16}, "says patch_size 16x16, its weights have 8x8"),
        ("open_clip_own", {"image_size": 64}, r"says image_size 64x64 \(64 .* for 17 tokens"),
        ("open_clip_own", {"layers": [3, 4]}, r"says layers \[3, 4\]; expected a whole number"),
        ("open_clip_own", {"head_width": "x"}, "says head_width 'x'; expected a whole number"),
        ("open_clip_own", {"head_width": 64}, "says head_width 64, its weights have a width of 32"),
        ("open_clip_own", {"norm_kwargs": {"eps": "a"}}, "norm_kwargs beside it says eps 'a'"),
        ("open_clip_own", {"attentional_pool": True}, "attentional_pool true, its weights have no"),
        ("open_clip_trunk", {"timm_pool": "max"}, "pools by 'max'"),
    ],
)
def test_a_configuration_of_another_tower_is_refused(
    fixture: str, vision: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        load_checkpoint(tower(tmp_path, fixture, **vision), dense=True)


def configured(path: Path, fixture: str, **said: Any) -> Path:
    """A folder of Hugging Face's whose configuration says this; what is `...` it leaves out."""
    folder(HUGGING_FACES[fixture].recorded(), path)
    told = json.loads((path / "config.json").read_text())
    of_images = told.get("vision_config", told)
    of_images |= said
    for key in [key for key, value in said.items() if value is ...]:
        del of_images[key]
    (path / "config.json").write_text(json.dumps(told))
    return path


OTHERS: dict[str, tuple[Any, str]] = {
    "hidden_size": (64, "says hidden_size 64, its weights have 32; put the configuration of this"),
    "num_hidden_layers": (3, "says num_hidden_layers 3, its weights have 2"),
    "intermediate_size": (64, "says intermediate_size 64, its weights have 48"),
    "patch_size": (4, "says patch_size 4x4, its weights have 8x8"),
    "num_channels": (1, "says num_channels 1, its weights have 3"),
    "image_size": (48, r"image_size 48x48 \(36 patches of 8x8\), its weights have positions for 1"),
}


@pytest.mark.parametrize("key", OTHERS)
@pytest.mark.parametrize("fixture", ["DeiTForImageClassification", "CLIPModel", "SiglipModel"])
def test_a_configuration_of_another_model_is_refused(
    fixture: str, key: str, tmp_path: Path
) -> None:
    value, said = OTHERS[key]
    with pytest.raises(InputError, match=said):
        load_checkpoint(configured(tmp_path, fixture, **{key: value}), dense=True)


@pytest.mark.parametrize(
    ("fixture", "default"),
    [
        ("ViTModel", "patch_size 16x16"),
        ("Dinov2Model", "patch_size 14x14"),
        ("Dinov2WithRegistersModel", "patch_size 16x16"),
        ("CLIPVisionModel", "patch_size 32x32"),
    ],
)
def test_what_a_configuration_leaves_out_is_its_librarys(
    fixture: str, default: str, tmp_path: Path
) -> None:
    """As transformers 5.24.0 has it."""
    with pytest.raises(InputError, match=f"says {default}, its default, its weights have 8x8"):
        load_checkpoint(configured(tmp_path, fixture, patch_size=...), dense=True)


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ({"num_attention_heads": "2", "image_size": "32", "layer_norm_eps": "1e-5"}, None),
        ({"num_attention_heads": 2.0, "image_size": [32, 32], "hidden_size": "32"}, None),
        ({"num_attention_heads": "two"}, "num_attention_heads 'two'; expected a whole number abov"),
        ({"num_attention_heads": 2.5}, "num_attention_heads 2.5; expected a whole number above 0"),
        ({"num_attention_heads": True}, "num_attention_heads True; expected a whole number above"),
        ({"num_attention_heads": 0}, "num_attention_heads 0; expected a whole number above 0"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps 'small'; expected a number between 0 and 1"),
        ({"hidden_act": 3}, "hidden_act 3; expected a name"),
        ({"image_size": [32]}, r"image_size \[32\]; expected a whole number above 0, or two"),
    ],
    ids=str,
)
def test_numbers_of_a_configuration(
    said: dict[str, Any], wrong: str | None, tmp_path: Path
) -> None:
    """Text that is exactly a number is one; all else is refused, not passed over."""
    path = configured(tmp_path, "ViTForImageClassification", **said)
    if wrong is not None:
        with pytest.raises(InputError, match=wrong):
            load_checkpoint(path, dense=True)
        return
    found = load_checkpoint(path, dense=True)
    assert (found.vit.heads, found.vit.image_size) == (2, (32, 32))
    assert found.vit.norm_eps == (1e-5 if "layer_norm_eps" in said else 1e-12)
    assert found.answers["num_heads"].where == "config.json: num_attention_heads"


def test_a_name_of_another_width_does_not_tell_the_heads(tmp_path: Path) -> None:
    model = positioned.model(positioned.DINO)
    path = positioned.save(tmp_path / "c.pth", model, positioned.DINO, num_heads=None)
    with pytest.raises(InputError, match=r"number of heads: its width is 32.*--num-heads"):
        load_checkpoint(path, dense=True)
    choices = Choices(num_heads=positioned.HEADS)
    assert load_checkpoint(path, choices, dense=True).vit.heads == positioned.HEADS


def test_an_empty_name_of_a_classifier_is_no_name(tmp_path: Path) -> None:
    path = positioned.save(
        tmp_path / "c.pth", positioned.made(positioned.DINO, num_classes=0), positioned.DINO
    )
    with pytest.raises(InputError, match="--head-name"):
        load_checkpoint(path, Choices(head_name=""), dense=True)
