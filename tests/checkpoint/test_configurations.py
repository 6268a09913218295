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
        ("open_clip_trunk", {"timm_pool": "max"}, "pools by 'max'"),
    ],
)
def test_a_configuration_of_another_tower_is_refused(
    fixture: str, vision: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        load_checkpoint(tower(tmp_path, fixture, **vision), dense=True)


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
