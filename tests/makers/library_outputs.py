"""Records what other libraries compute with small models: `tests/fixtures/libraries/*.json`.

    python -m tests.makers.library_outputs

Needs transformers and open_clip_torch, which the tests do not: their weights are numbers by name
(`library_numbers`), so that a fixture holds names, shapes, configurations and outputs. transformers
reads the weights from a folder as it does for a user, under the names that its files have, or takes
them as a state_dict, whose names are others since its version 5.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
import transformers
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from tests.conftest import FIXTURES
from tests.makers.library_numbers import images, numbers

FOLDER = FIXTURES / "libraries"
SIDE = 32
Outputs = dict[str, torch.Tensor]
_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
}
_MLP = {"intermediate_size": 48}
_LABELS = {"id2label": {0: "cat", 1: "dog", 2: "bird"}, "label2id": {"cat": 0, "dog": 1, "bird": 2}}
_TEXT = {
    "vocab_size": 10,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 4,
}


def _logits(found: Any) -> Outputs:
    return {"logits": found.logits}


def _pooled(found: Any) -> Outputs:
    return {"features": found.pooler_output, "tokens": found.last_hidden_state}


def _class_token(found: Any) -> Outputs:
    return {"features": found.last_hidden_state[:, 0], "tokens": found.last_hidden_state}


# By the fixture's name: class, configuration, and its outputs in this tool's words.
_TRANSFORMERS: Mapping[str, tuple[str, dict[str, Any], Callable[[Any], Outputs]]] = {
    "ViTForImageClassification": ("ViTConfig", {**_SMALL, **_MLP, **_LABELS}, _logits),
    "ViTModel": ("ViTConfig", {**_SMALL, **_MLP}, _class_token),
    "DeiTForImageClassification": ("DeiTConfig", {**_SMALL, **_MLP, **_LABELS}, _logits),
    "DeiTForImageClassificationWithTeacher": ("DeiTConfig", {**_SMALL, **_MLP, **_LABELS}, _logits),
    "DeiTModel": ("DeiTConfig", {**_SMALL, **_MLP}, _class_token),
    "Dinov2ForImageClassification": ("Dinov2Config", {**_SMALL, **_LABELS}, _logits),
    "Dinov2Model": ("Dinov2Config", {**_SMALL, "use_swiglu_ffn": True}, _pooled),
    "Dinov2WithRegistersForImageClassification": (
        "Dinov2WithRegistersConfig", {**_SMALL, **_LABELS}, _logits,
    ),
    "Dinov2WithRegistersModel": ("Dinov2WithRegistersConfig", {**_SMALL}, _pooled),
    "CLIPVisionModel": (
        "CLIPVisionConfig", {**_SMALL, **_MLP, "hidden_act": "gelu"},
        lambda found: {"features": found.pooler_output},
    ),
    "CLIPVisionModelWithProjection": (
        "CLIPVisionConfig", {**_SMALL, **_MLP, "projection_dim": 6},
        lambda found: {"logits": found.image_embeds},
    ),
    "SiglipVisionModel": ("SiglipVisionConfig", {**_SMALL, **_MLP}, _pooled),
    "SiglipForImageClassification": (
        "SiglipConfig", {"vision_config": {**_SMALL, **_MLP}, **_LABELS}, _logits,
    ),
    "CLIPModel": (
        "CLIPConfig",
        {"vision_config": {**_SMALL, **_MLP}, "text_config": _TEXT, "projection_dim": 6},
        lambda found: {"logits": found.pooler_output},
    ),
    "SiglipModel": (
        "SiglipConfig", {"vision_config": {**_SMALL, **_MLP}, "text_config": _TEXT},
        lambda found: {"features": found.pooler_output},
    ),
}  # fmt: skip
_IN_MEMORY = ("ViTForImageClassification", "Dinov2Model")  # under the names of a state_dict, too


def from_transformers(name: str, in_memory: bool) -> dict[str, Any]:
    """A model of transformers and what it computes."""
    config_class, values, outputs = _TRANSFORMERS[name]
    model_class = getattr(transformers, name)
    empty = model_class(getattr(transformers, config_class)(**values))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        empty.save_pretrained(path)
        config = json.loads((path / "config.json").read_text())
        with safe_open(path / "model.safetensors", "pt") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
        if in_memory:
            shapes = {key: list(value.shape) for key, value in empty.state_dict().items()}
            empty.load_state_dict(_tensors(shapes))
            model = empty
        else:
            save_file(_tensors(shapes), path / "model.safetensors", {"format": "pt"})
            model = model_class.from_pretrained(path)
    model.eval()
    call = model.get_image_features if hasattr(model, "get_image_features") else model
    with torch.inference_mode():
        found = outputs(call(pixel_values=torch.from_numpy(images(SIDE))))
    return _fixture("transformers", transformers.__version__, config, shapes, found)


_TEXT_HALF = CLIPTextCfg(context_length=4, vocab_size=10, width=16, heads=2, layers=1)
_OPEN_CLIP: Mapping[str, dict[str, Any]] = {
    "own": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": SIDE},
    "own_average": {
        "layers": 2, "width": 32, "head_width": 8, "patch_size": 8, "image_size": SIDE,
        "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True, "ls_init_value": 0.1,
    },
    "trunk": {"timm_model_name": "test_vit", "timm_pool": "token", "image_size": 160},
}  # fmt: skip


def from_open_clip(name: str) -> dict[str, Any]:
    """An image tower of open_clip and what it computes, not normalised."""
    vision = _OPEN_CLIP[name]
    quick = name == "own"
    model = CLIP(6, CLIPVisionCfg(**vision), _TEXT_HALF, quick_gelu=quick).eval()
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    _fill(model, shapes)
    config = {"model_cfg": {"embed_dim": 6, "vision_cfg": vision, "quick_gelu": quick}}
    side = int(vision["image_size"])
    with torch.inference_mode():
        found = {"logits": model.encode_image(torch.from_numpy(images(side)))}
    return _fixture("open_clip_torch", open_clip.__version__, config, shapes, found)


def _fill(model: nn.Module, shapes: Mapping[str, Any]) -> None:
    known = _tensors(shapes)
    model.load_state_dict({key: known[key] for key in model.state_dict()})


def _tensors(shapes: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in numbers(shapes).items()}


def _fixture(
    library: str, version: str, config: Any, shapes: Mapping[str, Any], outputs: Outputs
) -> dict[str, Any]:
    versions = {library: version, "torch": torch.__version__, "timm": timm.__version__}
    listed = {key: value.double().tolist() for key, value in outputs.items()}
    return {"versions": versions, "config": config, "shapes": dict(shapes), "outputs": listed}


def _save(name: str, fixture: dict[str, Any]) -> None:
    text = json.dumps(fixture, separators=(",", ":"))
    rounded = json.loads(text, parse_float=lambda digits: float(f"{float(digits):.7g}"))
    (FOLDER / f"{name}.json").write_text(json.dumps(rounded, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in _TRANSFORMERS:
        _save(name, from_transformers(name, in_memory=False))
    for name in _IN_MEMORY:
        _save(f"{name}_state_dict", from_transformers(name, in_memory=True))
    for name in _OPEN_CLIP:
        _save(f"open_clip_{name}", from_open_clip(name))
