"""Pixels are timm's own, for whatever its configurations of ViTs say and a checkpoint may state."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config

from ltmp_export import export, inspect
from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.commands import belonging
from ltmp_export.errors import InputError
from ltmp_export.images import inputs, sets
from ltmp_export.images.preprocessing import (
    CROP_MODES,
    INTERPOLATIONS,
    Preprocessing,
    Resolved,
    resolve,
)
from ltmp_export.model_file.model import read_exported
from ltmp_export.plan.vit import Vit
from ltmp_export.statements import timm_names
from ltmp_export.statements.choices import Choices

MODULES = ("vision_transformer", "deit")
SHAPES = ((40, 96), (96, 40), (61, 61), (13, 11))  # wide, tall, square, smaller than the input
BARE = Vit("vit", (32, 32), (4, 4), 3, 10, 1, 64, 64, 1, 64, 1e-6, "gelu", "token")


def prepared(vit: Vit, args: Mapping[str, Any] | None = None, **stated: Any) -> Resolved:
    """What is made of a file's words and the user's, and of the name."""
    return resolve(Choices(**stated), args or {}, vit, timm_names.resolve(vit.name))


def named() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every configuration that timm has of a ViT, with its name."""
    known = {name for module in MODULES for name in timm.list_models(module=module)}
    tagged = [name for name in timm.list_pretrained() if name.split(".")[0] in known]
    for name in (*tagged, *sorted(known)):
        config = timm.get_pretrained_cfg(name)
        if config is not None and config.input_size is not None:
            yield name, config.to_dict()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in all shapes."""
    path, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for index, shape in enumerate(SHAPES):
        noise = rng.integers(0, 256, (*shape, 4), dtype=np.uint8)
        noise[..., 3] = 255
        Image.fromarray(noise).save(path / f"{index}.png")
    return path


def theirs(folder: Path, config: Mapping[str, Any], mode: str = "RGB") -> NDArray[np.float32]:
    """What timm makes of the pictures."""
    transform = create_transform(**config)
    pixels = []
    for path in sorted(folder.iterdir()):
        with Image.open(path) as picture:
            pixels.append(transform(picture.convert(mode)))
    return torch.stack(pixels).numpy()


def test_every_configuration_of_timms_vits(folder: Path) -> None:
    """At an eighth of their sizes: shares are rounded there as they are in full."""
    different: dict[str, tuple[Vit, Preprocessing, Mapping[str, Any]]] = {}
    for name, config in named():
        wanted = resolve_data_config({}, pretrained_cfg=config)
        channels, *size = wanted["input_size"]
        height, width = (side // 8 for side in size)
        vit = replace(BARE, name=name, image_size=(height, width), in_chans=channels)
        found, _, odd = prepared(vit)
        assert not found.assumed, name
        assert not odd, name
        wanted["input_size"] = vit.input_size
        different.setdefault(str(wanted), (vit, found, wanted))
    crops = {(found.crop_mode, found.crop_pct) for _, found, _ in different.values()}
    assert {("squash", 1.0), ("squash", 0.95), ("center", 0.9)} <= crops
    for vit, found, wanted in different.values():
        ours = inputs.load_images(folder, vit, found).pixels
        np.testing.assert_array_equal(ours, theirs(folder, wanted), vit.name)


STATED = [
    *product(CROP_MODES, (0.5, 0.875, 1, 1.3), ("bicubic",), ((32, 32), (24, 40), (40, 24))),
    *product(CROP_MODES, (0.9,), INTERPOLATIONS, ((32, 32),)),
]


def test_whatever_a_checkpoint_may_state(folder: Path) -> None:
    for mode, share, interpolation, size in STATED:
        args = {"crop_mode": mode, "crop_pct": share, "interpolation": interpolation}
        args |= {"mean": [0.4], "std": [0.3, 0.2, 0.1], "input_size": [3, *size]}
        vit = replace(BARE, image_size=size)
        found, _, odd = prepared(vit, args)
        assert not odd
        ours = inputs.load_images(folder, vit, found).pixels
        np.testing.assert_array_equal(ours, theirs(folder, resolve_data_config(args)), str(args))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (4, "RGBA")])
@pytest.mark.parametrize("crop_mode", CROP_MODES)
def test_grey_and_four_channels(folder: Path, channels: int, mode: str, crop_mode: str) -> None:
    args = {"crop_mode": crop_mode, "mean": [0.4], "std": [0.3], "input_size": [channels, 32, 32]}
    vit = replace(BARE, in_chans=channels)
    found = prepared(vit, args).preprocessing
    ours = inputs.load_images(folder, vit, found).pixels
    np.testing.assert_array_equal(ours, theirs(folder, resolve_data_config(args), mode))


@pytest.mark.parametrize(
    ("args", "expected", "note"),
    [
        (
            {"interpolation": "random"},
            "bicubic",
            "interpolation 'random' .args.interpolation. is none",
        ),
        ({"interpolation": "", "crop_pct": None}, "bicubic", None),
        (
            {"crop_mode": "middle"},
            "squash",
            "crop_mode 'middle' .args.crop_mode. is none that timm",
        ),
        ({"crop_pct": -1.0}, 1.0, "crop_pct '-1.0' .args.crop_pct. is none"),
        ({"crop_pct": True}, 1.0, "crop_pct 'True' .args.crop_pct. is none"),
        ({"crop_pct": 1.5}, 1.5, None),
        ({"crop_mode": "border"}, "border", None),
    ],
)
def test_the_file_decides_before_the_name(
    args: dict[str, Any], expected: object, note: str | None
) -> None:
    """Timm's for this name: squash, 1.0, bicubic."""
    vit = replace(BARE, name="vit_base_patch16_clip_384.laion2b_ft_in12k_in1k")
    found, answers, odd = prepared(vit, args)
    key = next(iter(args))
    assert getattr(found, key) == answers[key].value == expected
    assert len(odd) == (note is not None)
    if note is not None:
        assert re.match(note, odd[0]), odd[0]


def test_what_is_assumed_of_a_file_that_says_nothing() -> None:
    found = prepared(BARE, mean=(0.5,), std=(0.5,)).preprocessing
    assert (found.crop_pct, found.interpolation, found.crop_mode) == (0.875, "bicubic", "center")
    assert found.assumed == ("crop_pct", "interpolation", "crop_mode")
    found = prepared(BARE, {"crop_pct": 0.9}, mean=(0.5,), std=(0.5,)).preprocessing
    assert found.assumed == ("interpolation",)  # it is of a time without modes


Content = dict[str, Any]


def test_the_crop_goes_the_whole_way(
    content: Content, write: Callable[..., Path], tmp_path: Path, folder: Path
) -> None:
    """Checkpoint, exported file, inspect, images of check and bench, and those of eval."""
    content["args"].update(crop_mode="border", crop_pct=0.8, interpolation="lanczos")
    checkpoint = load_checkpoint(write(content))
    assert checkpoint.preprocessing.crop_mode == "border"
    export(checkpoint, tmp_path / "m.onnx", check=False)
    exported = read_exported(tmp_path / "m.onnx")
    assert exported.preprocessing == checkpoint.preprocessing
    assert exported.metadata["crop_mode"] == "border"
    assert inspect(tmp_path / "m.onnx")["preprocessing"]["crop_mode"] == "border"
    wanted = theirs(
        folder, resolve_data_config(content["args"] | {"input_size": None, "img_size": 32})
    )
    ours = inputs.load_images(folder, exported.vit, exported.preprocessing).pixels
    np.testing.assert_array_equal(ours, wanted)
    labelled = sets.held_out(folder, sets.Kind.of(exported))
    np.testing.assert_array_equal(torch.cat(list(labelled.batches(3))).numpy(), wanted)


def rewrite(path: Path, words: Mapping[str, str | None]) -> None:
    """Other metadata in an exported file; None takes one out."""
    model = onnx.load(path)
    kept = {**{entry.key: entry.value for entry in model.metadata_props}, **words}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {k: v for k, v in kept.items() if v is not None})
    onnx.save(model, path)


def test_files_of_before(content: Content, write: Callable[..., Path], tmp_path: Path) -> None:
    """They know no mode, and cut out the middle; where the checkpoint does not, that is said."""
    content["args"]["crop_mode"] = "squash"
    checkpoint = load_checkpoint(write(content))
    export(checkpoint, tmp_path / "m.onnx", check=False)
    rewrite(tmp_path / "m.onnx", {"crop_mode": None})
    exported = read_exported(tmp_path / "m.onnx")
    assert exported.preprocessing.crop_mode == "center"
    (doubt,) = belonging.doubts(exported, checkpoint)
    assert doubt.endswith("prepare images differently")
    for key, value in (("crop_mode", "middle"), ("interpolation", "zzz"), ("crop_pct", "-1")):
        rewrite(tmp_path / "m.onnx", {"crop_mode": "center", key: value})
        with pytest.raises(InputError, match=f"damaged ltmp metadata .{key} .*{value}.*; export"):
            read_exported(tmp_path / "m.onnx")
        rewrite(tmp_path / "m.onnx", {key: {"interpolation": "bicubic"}.get(key, "1.0")})


def test_a_configuration_of_the_hub(content: Content, tmp_path: Path) -> None:
    save_file(content["state_dict"], tmp_path / "model.safetensors")
    told = {"crop_mode": "squash", "crop_pct": 0.95, "mean": [0.5], "std": [0.5]}
    config = {"architecture": "ltmp_vit_digits", "pretrained_cfg": told}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = load_checkpoint(tmp_path).preprocessing
    assert found == Preprocessing((0.5,) * 3, (0.5,) * 3, 0.95, "bicubic", "squash")
