"""Every dialect of checkpoints: found, named, and the same model in each."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf
from timm.models.vision_transformer import VisionTransformer
from timm.utils import CheckpointSaver, ModelEmaV2, NativeScaler

from ltmp_export import inspect
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.statements.choices import Choices
from tests.conftest import DIGITS_LTMP, FIXTURES

Content = dict[str, Any]
ARCH = "ltmp_vit_digits_patch4_32"
STATED = Choices(family="ltmp", num_heads=2)


def prefixed(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + key: value for key, value in state.items()}


def dense(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if "masker" not in key}


def lightning(state: Mapping[str, Any], prefix: str = "model.") -> Content:
    """What a Trainer saves; the loss has a buffer of its own."""
    return {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": prefixed(state, prefix) | {"criterion.weight": torch.ones(10)},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": "/a/b"}},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"model_name": ARCH, "lr": 0.1},
    }


FORMS: Mapping[str, tuple[Callable[[Mapping[str, Any]], Content], str]] = {
    "bare": (lambda s: dict(s), "bare state_dict"),
    "state_dict": (lambda s: {"state_dict": s}, "dictionary with 'state_dict'"),
    "model": (lambda s: {"model": s, "epoch": 7}, "dictionary with 'model'"),
    "timm": (
        lambda s: {"state_dict": s, "arch": ARCH, "args": argparse.Namespace(lr=1), "epoch": 7},
        "timm training checkpoint, epoch 7",
    ),
    "DDP": (lambda s: {"state_dict": prefixed(s, "module.")}, "wrapped as module: taken off"),
    "compile": (lambda s: {"state_dict": prefixed(s, "_orig_mod.")}, "wrapped as _orig_mod: taken"),
    "DDP of compile": (
        lambda s: {"state_dict": prefixed(s, "module._orig_mod.")},
        "wrapped as _orig_mod, module: taken off",
    ),
    "compiled blocks": (
        lambda s: {k.replace("blocks.", "blocks.", 1).replace(".attn.", "._orig_mod.attn."): v
                   for k, v in s.items()},
        "wrapped as _orig_mod",
    ),
    "FSDP": (lambda s: prefixed(s, "_fsdp_wrapped_module."), "wrapped as _fsdp_wrapped_module"),
    "torch's AveragedModel": (
        lambda s: prefixed(s, "module.") | {"n_averaged": torch.tensor(5)},
        "wrapped as module",
    ),
    "Lightning": (lightning, "PyTorch Lightning checkpoint"),
    "Lightning, net": (lambda s: lightning(s, "net."), "prefix 'net.' taken off 92 keys"),
    "Lightning, compiled": (lambda s: lightning(s, "model._orig_mod."), "prefix 'model.' taken"),
    "some attribute": (
        lambda s: {"state_dict": prefixed(s, "student.vit.")},
        "prefix 'student.vit.' taken off 92 keys",
    ),
    "beside its teacher": (
        lambda s: {"state_dict": prefixed(s, "model.") | prefixed(dense(s), "teacher.")},
        "left out: 80 keys of something else (teacher.cls_token, teacher.pos_embed, teacher.",
    ),
    "EMA only": (lambda s: {"state_dict_ema": s}, "averaged weights (state_dict_ema): there are"),
    "EMA only, DeiT's": (lambda s: {"model_ema": prefixed(s, "module.")}, "averaged weights"),
    "EMA attribute only": (
        lambda s: {"state_dict": prefixed(s, "ema_model.")},
        "averaged weights (ema_model.): there are no others",
    ),
    "half": (lambda s: {k: v.half() for k, v in s.items()}, "computed with as float32"),
    "bfloat16": (lambda s: {k: v.bfloat16() for k, v in s.items()}, "80 tensors of bfloat16"),
    "double": (lambda s: {k: v.double() for k, v in s.items()}, "80 tensors of float64"),
}  # fmt: skip


def same_model(found: Checkpoint, half: bool = False) -> None:
    whole = load_checkpoint(DIGITS_LTMP)
    left, right = whole.model.state_dict(), found.model.state_dict()
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert torch.allclose(value, right[key], rtol=1e-2 if half else 0, atol=1e-4 if half else 0)
    assert found.plan.family == "ltmp"
    assert half or found.plan == whole.plan


@pytest.mark.parametrize("name", FORMS)
def test_every_dialect_is_the_same_model_and_named(
    content: Content, tmp_path: Path, name: str
) -> None:
    make, expected = FORMS[name]
    torch.save(make(content["state_dict"]), tmp_path / "c.pth")
    found = load_checkpoint(tmp_path / "c.pth", STATED)
    same_model(found, half="16" in name or name == "half")
    assert any(line.startswith(expected) for line in found.found), found.found
    assert found.found[-1] == "family ltmp: as --family says"


@pytest.mark.parametrize("old", [True, False], ids=["before 1.6", "zip"])
def test_the_containers_of_pytorch(content: Content, tmp_path: Path, old: bool) -> None:
    torch.save(content["state_dict"], tmp_path / "c", _use_new_zipfile_serialization=not old)
    same_model(load_checkpoint(tmp_path / "c", STATED))


CONFIG = {
    "architecture": ARCH,
    "num_classes": 10,
    "label_names": [f"digit {i}" for i in range(10)],
    "pretrained_cfg": {
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "crop_pct": 0.9,
        "interpolation": "bilinear",
        "input_size": [3, 32, 32],
    },
}


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("prefix", ["", "timm_model."])
def test_hugging_face_files(content: Content, tmp_path: Path, file: str, prefix: str) -> None:
    state = prefixed(content["state_dict"], prefix)
    (save_file if "safe" in file else torch.save)(state, tmp_path / file)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    for path in (tmp_path / file, tmp_path):
        found = load_checkpoint(path)
        same_model(found)
        assert found.path == tmp_path / file
        assert found.found[0] == "Hugging Face model"
        assert f"family ltmp: as the name {ARCH} says" in found.found
        assert found.preprocessing.mean == (0.1, 0.2, 0.3)
        assert found.preprocessing.crop_pct == 0.9
        assert found.label_names is not None
        assert found.label_names[3] == "digit 3"
        assert not found.warnings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json is damaged"),
        ("[" * 100_000, "config.json is damaged"),
        ('{"architecture": "\\ud800"}', "config.json is damaged"),
        ("[1]", "is a JSON list; expected an object"),
        ('"' + "x" * (1 << 20) + '"', "has more than 1 MiB"),
    ],
    ids=["cut", "deep", "no Unicode", "list", "long"],
)
def test_damaged_configurations(content: Content, tmp_path: Path, text: str, message: str) -> None:
    save_file(content["state_dict"], tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=message):
        load_checkpoint(tmp_path)


def test_folders_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a directory without model\.safetensors or pytorch_m"):
        load_checkpoint(tmp_path)
    (tmp_path / "model.safetensors.index.json").touch()
    with pytest.raises(InputError, match="holds a model in pieces"):
        load_checkpoint(tmp_path)


def test_several_models_are_not_guessed_at(content: Content, tmp_path: Path) -> None:
    state = content["state_dict"]
    torch.save(prefixed(state, "a.") | prefixed(state, "b."), tmp_path / "c.pth")
    with pytest.raises(InputError, match="holds several models, under 'a.', 'b.'; save one"):
        load_checkpoint(tmp_path / "c.pth")


def test_averaged_attribute_when_asked(content: Content, tmp_path: Path) -> None:
    state = content["state_dict"]
    other = {k: v + 1 if k == "head.bias" else v for k, v in state.items()}
    torch.save(prefixed(state, "net.") | prefixed(other, "net_ema."), tmp_path / "c.pth")
    plain = load_checkpoint(tmp_path / "c.pth", STATED)
    assert torch.equal(plain.model.head.bias, state["head.bias"])
    averaged = load_checkpoint(tmp_path / "c.pth", replace(STATED, use_ema=True))
    assert torch.equal(averaged.model.head.bias, other["head.bias"])
    torch.save(prefixed(other, "net_ema."), tmp_path / "c.pth")
    with pytest.raises(InputError, match="averaged weights only; drop --no-ema"):
        load_checkpoint(tmp_path / "c.pth", replace(STATED, use_ema=False))


def test_names_and_holders_that_contradict_each_other(
    content: Content, tmp_path: Path, digits_base: Path
) -> None:
    """Of two answers none is picked in silence."""
    state, path = content["state_dict"], tmp_path / "c.pth"
    learned = {key: value for key, value in state.items() if "masker" in key}
    apart = prefixed(dense(state), "model.") | learned
    refusals: dict[str, Content] = {
        "weights under 'state_dict' and 'model'; save one": {"state_dict": state, "model": state},
        "thresholds stand under '', the model under 'model.'": apart,
        "calls itself ltmp_a, ltpm_a; state the family": {
            "state_dict": state, "arch": "ltmp_a", "args": {"model": "ltpm_a"},
        },
    }  # fmt: skip
    for message, made in refusals.items():
        torch.save(made, path)
        with pytest.raises(InputError, match=message):
            load_checkpoint(path)
    torch.save({"state_dict": state, "arch": "ltmp_a", "args": {"model": "ltmp_b"}}, path)
    assert load_checkpoint(path).warnings == ("the file calls itself ltmp_a, but also ltmp_b",)
    torch.save({"state_dict": state, "arch": "x" * 1000, "args": {"model": "ltmp_b"}}, path)
    assert load_checkpoint(path).arch == "ltmp_b"


def test_a_base_of_another_name_is_refused(tmp_path: Path) -> None:
    """vit_tiny and deit_tiny have the same keys and shapes, and other weights."""
    vit, deit = "vit_tiny_patch16_224", "deit_tiny_patch16_224"
    model = timm.create_model(deit, depth=1, num_classes=3)
    torch.save({"state_dict": model.state_dict(), "arch": deit}, tmp_path / "base.pth")
    learned = {"blocks.0.merge_masker.threshold": torch.tensor([0.9])}
    torch.save({"state_dict": learned, "arch": f"ltm_{vit}"}, tmp_path / "t.pth")
    base = tmp_path / "base.pth"
    with pytest.raises(InputError, match=f"t.pth is of {vit}, the base .*base.pth is {deit}; give"):
        load_checkpoint(tmp_path / "t.pth", Choices(base_checkpoint=base))
    found = load_checkpoint(tmp_path / "t.pth", Choices(base_checkpoint=base, model=deit))
    assert f"is of {vit}, the base" in found.warnings[0]
    assert found.vit.name == deit


def test_averages_beside_and_inside_the_model(content: Content, tmp_path: Path) -> None:
    state = content["state_dict"]
    other = {k: v + 1 if k == "head.bias" else v for k, v in state.items()}
    for nested in ("model.ema.", "averaged_model.module."):
        made = prefixed(state, "model.") | prefixed(other, nested)
        made["averaged_model.n_averaged"] = torch.tensor(3)
        torch.save(made, tmp_path / "c.pth")
        plain = load_checkpoint(tmp_path / "c.pth", STATED)
        assert torch.equal(plain.model.head.bias, state["head.bias"])
        averaged = load_checkpoint(tmp_path / "c.pth", replace(STATED, use_ema=True))
        assert torch.equal(averaged.model.head.bias, other["head.bias"])


def groups(*sizes: int, rates: tuple[float, ...] = ()) -> Content:
    """An optimizer of so many parameters a group."""
    pairs = zip(sizes, rates or (0.1,) * len(sizes), strict=True)
    return {
        "state": {},
        "param_groups": [{"lr": 0.0, "initial_lr": r, "params": list(range(n))} for n, r in pairs],
    }


def test_thresholds_of_a_run_that_trained_the_weights_are_refused(
    content: Content, tmp_path: Path, digits_base: Path
) -> None:
    """The authors' third learning rate is for the weights: no base has what they learned."""
    path = tmp_path / "thresholds.pth"
    choices = Choices(base_checkpoint=digits_base)
    content["state_dict"] = {k: v for k, v in content["state_dict"].items() if "masker" in k}
    content["args"] = argparse.Namespace(**content["args"])
    torch.save(content | {"optimizer": groups(6, 6, 80)}, path)
    for stated in (choices, None):
        with pytest.raises(
            InputError, match="12 thresholds only, but its optimizer trained 92 par"
        ):
            load_checkpoint(path, stated)
    for optimizer in (
        groups(6, 6),
        groups(6, 6, 80, rates=(0.1, 0.1, 0.0)),
        {},
        {"param_groups": 3},
    ):
        torch.save(content | {"optimizer": optimizer}, path)
        assert load_checkpoint(path, choices).plan.family == "ltmp"


def test_inspect_tells_what_it_found_and_why(content: Content, tmp_path: Path) -> None:
    torch.save(lightning(content["state_dict"]), tmp_path / "c.ckpt")
    facts = inspect(tmp_path / "c.ckpt")
    assert facts["kind"] == "checkpoint"
    assert facts["found"] == [
        "PyTorch Lightning checkpoint",
        "prefix 'model.' taken off 92 keys",
        "left out: 1 keys of something else (criterion.weight)",
        "optimizer of 2 parameters, not read",
        "80 tensors of float32, 6 merge thresholds, 6 prune thresholds",
        "vit_digits_patch4_32: no name of timm's",
        f"family ltmp: as the name {ARCH} says",
    ]
    facts = inspect(FIXTURES / "digits_ltm_thresholds.pth.tar")
    assert facts["found"][-1] == "no weights, 6 merge thresholds"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_classes": 1000}, r"states 1000 classes \(num_classes\), its weights have 10"),
        ({"label_names": ["a", "b"]}, r"states 2 classes \(label_names\), its weights have 10"),
        ({"in_chans": 1}, r"states 1 channels \(in_chans\), its weights have 3"),
    ],
)
def test_contradictions_are_warnings(
    content: Content, write: Callable[[Content], Path], changed: Content, message: str
) -> None:
    content["args"].update(changed)
    (warning,) = load_checkpoint(write(content)).warnings
    assert re.search(message, warning)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("layer1.0.conv1.weight", "a ResNet"),
        ("layers.0.blocks.0.attn.qkv.weight", "a Swin Transformer"),
        ("stages.0.blocks.0.conv_dw.weight", "a ConvNeXt"),
        ("vit.encoder.layer.0.attention.attention.query.weight", "a ViT of Hugging Face"),
        ("encoder.layers.encoder_layer_0.ln_1.weight", "a ViT of torchvision"),
        ("visual.transformer.resblocks.0.ln_1.weight", "a CLIP model"),
        ("transformer.layers.0.0.norm.weight", "a ViT of vit-pytorch"),
    ],
)
def test_another_architecture_is_recognised(tmp_path: Path, key: str, name: str) -> None:
    torch.save({key: torch.ones(2)}, tmp_path / "c.pth")
    with pytest.raises(InputError, match=f"not a plain timm Vision.*it looks like {name}"):
        load_checkpoint(tmp_path / "c.pth")


def small_timm_model() -> VisionTransformer:
    """Small, of a name that timm knows, with merge thresholds where the authors have them."""
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=3)
    assert isinstance(model, VisionTransformer)
    for block in model.blocks:
        masker = torch.nn.Module()
        masker.register_parameter("threshold", torch.nn.Parameter(torch.tensor([0.8])))
        block.merge_masker = masker
    return model


def test_what_timms_saver_writes_today(tmp_path: Path) -> None:
    """With an optimizer that has moments, averaged weights and a scaler."""
    model = small_timm_model()
    averaged = ModelEmaV2(model)
    optimizer = torch.optim.Adam(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    arguments = argparse.Namespace(
        model="ltm_vit_tiny_patch16_224", num_classes=3, lr=np.float64(0.1)
    )
    saver = CheckpointSaver(
        model,
        optimizer,
        args=arguments,
        model_ema=averaged,
        amp_scaler=NativeScaler(device="cpu"),
        checkpoint_dir=str(tmp_path),
        recovery_dir=str(tmp_path),
    )
    saver.save_checkpoint(4, metric=0.5)
    found = load_checkpoint(tmp_path / "last.pth.tar")
    assert (found.plan.family, found.vit.name) == ("ltm", "vit_tiny_patch16_224")
    assert found.vit.image_size == (32, 32)
    assert torch.equal(found.model.head.weight, model.head.weight)
    assert found.found[0] == "timm training checkpoint, epoch 4"
    assert "weights of 'state_dict'; state_dict_ema is there, too (--use-ema)" in found.found
    taken = load_checkpoint(tmp_path / "last.pth.tar", Choices(use_ema=True))
    assert torch.equal(taken.model.head.weight, averaged.module.head.weight)
    assert not torch.equal(taken.model.head.weight, model.head.weight)


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_what_timm_writes_for_hugging_face(tmp_path: Path, safe: bool) -> None:
    save_for_hf(small_timm_model(), tmp_path, safe_serialization=safe)
    found = load_checkpoint(tmp_path)
    assert (found.plan.family, found.vit.name) == ("ltm", "vit_tiny_patch16_224")
    assert found.preprocessing.mean == (0.5, 0.5, 0.5)
    assert found.found[0] == "Hugging Face model"
