"""Models of other libraries: what is read computes what the library computed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from tests.conftest import FIXTURES
from tests.makers.library_numbers import images, numbers
from tests.tolerances import OTHER_LIBRARY

RECORDED = sorted((FIXTURES / "libraries").glob("*.json"))
Fixture = dict[str, Any]


def fixture(name: str) -> Fixture:
    """What a library recorded, see `tests/makers/library_outputs.py`."""
    found: Fixture = json.loads((FIXTURES / "libraries" / f"{name}.json").read_text())
    return found


def weights(recorded: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(v) for k, v in numbers(recorded["shapes"]).items()}


def folder(recorded: Mapping[str, Any], path: Path) -> Path:
    """A folder as the library saves it."""
    clip = "model_cfg" in recorded["config"]
    save_file(weights(recorded), path / f"{'open_clip_' if clip else ''}model.safetensors")
    config = "open_clip_config.json" if clip else "config.json"
    (path / config).write_text(json.dumps(recorded["config"]))
    return path


def require_same(found: Checkpoint, recorded: Mapping[str, Any]) -> None:
    """Every output that the library gave, within 2e-4 of the largest."""
    pixels = torch.from_numpy(images(found.vit.image_size[0]))
    with torch.inference_mode():
        outputs = {"tokens": found.model.forward_features(pixels)}
        outputs["features"] = found.model.forward_head(outputs["tokens"], pre_logits=True)
        outputs["logits"] = found.model(pixels)
    for name, values in recorded["outputs"].items():
        expected = torch.tensor(values)
        assert outputs[name].shape == expected.shape, name
        worst = (outputs[name] - expected).abs().max() / expected.abs().max()
        assert worst < OTHER_LIBRARY, (name, worst)


@pytest.mark.parametrize("name", [path.stem for path in RECORDED])
def test_a_folder_of_the_library_is_its_model(name: str, tmp_path: Path) -> None:
    recorded = fixture(name)
    found = load_checkpoint(folder(recorded, tmp_path), dense=True)
    require_same(found, recorded)
    assert not found.warnings
    config = recorded["config"].get("vision_config", recorded["config"])
    if "layer_norm_eps" in config:
        assert found.vit.norm_eps == config["layer_norm_eps"]
        assert found.vit.heads == config["num_attention_heads"]
