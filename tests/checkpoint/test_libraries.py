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
from tests.documents.libraries import ROWS, Row, table
from tests.documents.manuals import ROOT
from tests.makers.library_numbers import images, numbers
from tests.tolerances import OTHER_LIBRARY

MANUAL = ROOT / "ltmp_export" / "checkpoint" / "README.md"
Fixture = Mapping[str, Any]


def weights(recorded: Fixture) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(v) for k, v in numbers(recorded["shapes"]).items()}


def folder(recorded: Fixture, path: Path) -> Path:
    """A folder as the library saves it."""
    clip = "model_cfg" in recorded["config"]
    save_file(weights(recorded), path / f"{'open_clip_' if clip else ''}model.safetensors")
    config = "open_clip_config.json" if clip else "config.json"
    (path / config).write_text(json.dumps(recorded["config"]))
    return path


def require_same(found: Checkpoint, outputs: Mapping[str, Any]) -> None:
    """Every output that the library gave, within 2e-4 of the largest."""
    pixels = torch.from_numpy(images(found.vit.image_size[0]))
    with torch.inference_mode():
        tokens = found.model.forward_features(pixels)
        ours = {"tokens": tokens, "logits": found.model(pixels)}
        ours["features"] = found.model.forward_head(tokens, pre_logits=True)
    for name, values in outputs.items():
        expected = torch.tensor(values)
        assert ours[name].shape == expected.shape, name
        worst = (ours[name] - expected).abs().max() / expected.abs().max()
        assert worst < OTHER_LIBRARY, (name, worst)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fixture)
def test_a_folder_of_the_library_is_its_model(row: Row, tmp_path: Path) -> None:
    recorded = row.recorded()
    found = load_checkpoint(folder(recorded, tmp_path), dense=True)
    require_same(found, recorded["outputs"])
    assert any(row.says in line for line in found.found), found.found
    config = recorded["config"].get("vision_config", recorded["config"])
    if "layer_norm_eps" in config:
        assert not found.warnings
        assert found.vit.norm_eps == config["layer_norm_eps"]
        assert found.vit.heads == config["num_attention_heads"]


def test_the_manual_has_these_rows() -> None:
    assert table() in MANUAL.read_text(), f"the table must be\n{table()}"
