"""Names of models: timm's own, those it has given up, the Hub's, and those of training scripts."""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from ltmp_cli.main import app
from timm.data import resolve_data_config
from typer.testing import CliRunner

from ltmp_export import load_checkpoint
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.statements import timm_names
from ltmp_export.statements.choices import Choices
from ltmp_export.statements.timm_names import TimmName, did_you_mean_model, require, resolve

DINO = "vit_small_patch16_224.dino"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (DINO, TimmName(DINO)),
        ("deit_small_patch16_224", TimmName("deit_small_patch16_224")),
        ("vit_small_patch16_224_dino", TimmName(DINO, "vit_small_patch16_224_dino")),
        (f"hf-hub:timm/{DINO}", TimmName(DINO, f"hf-hub:timm/{DINO}")),
        (f"hf_hub:timm/{DINO}@main", TimmName(DINO, f"hf_hub:timm/{DINO}@main")),
        (
            "hf-hub:timm/vit_small_patch16_224_dino",
            TimmName(DINO, "hf-hub:timm/vit_small_patch16_224_dino"),
        ),
        (
            "vit_small_patch16_224.mine",
            TimmName("vit_small_patch16_224", "vit_small_patch16_224.mine", tagged=False),
        ),
        ("vit_huge_patch14", TimmName("vit_huge_patch14_224.mae", "vit_huge_patch14")),
        ("hf-hub:timm/nothing_of_the_kind", None),
        ("hf-hub:owner/not-in-the-cache", None),
        ("hf-hub:", None),
        ("vit_digits_patch4_32", None),
        ("", None),
    ],
)
def test_names(written: str, expected: TimmName | None, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert resolve(written) == expected


def deprecated() -> dict[str, str]:
    """ViTs under the names that timm has given up, and what it builds for them."""
    from timm.models import _registry

    old = _registry._deprecated_models
    return {a: b for a, b in old.items() if b and a.startswith(("vit", "deit")) and "_r" not in a}


def test_given_up_names_are_what_timm_builds_for_them() -> None:
    """Where timm builds anything: some stand for pretrained tags that it has no more."""
    seen = 0
    for old, new in deprecated().items():
        found = resolve(old)
        if found is None:
            with pytest.raises(RuntimeError, match="Invalid pretrained tag"):
                timm.get_pretrained_cfg(new)
            continue
        seen += 1
        assert found.name == new
        with warnings.catch_warnings(), timm_names.without_numbers():
            warnings.simplefilter("ignore")
            built = timm.create_model(old, pretrained=False)
        config, wanted = found.config, resolve_data_config({}, model=built)
        for key in ("mean", "std", "crop_pct", "interpolation"):
            assert getattr(config, key) == wanted[key], old
    assert seen > 20


def trained(name: str, path: Path, **changed: Any) -> Any:
    """A training checkpoint of timm's script, and timm's model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = timm.create_model(name, num_classes=6, depth=1).eval()
    args = argparse.Namespace(**{"model": name, "num_classes": 6, "mean": None, "gp": None})
    vars(args).update(changed)
    torch.save({"arch": name, "state_dict": model.state_dict(), "args": args}, path)
    return model


def as_timm(found: Checkpoint, model: Any) -> None:
    """Heads, pooling, activation, epsilon, crop and normalisation are those of timm's model."""
    vit, config = found.vit, resolve_data_config({}, model=model)
    assert vit.heads == model.blocks[0].attn.num_heads
    assert (vit.pool, vit.norm_eps) == (model.global_pool, model.blocks[0].norm1.eps)
    assert found.preprocessing.mean == config["mean"]
    assert found.preprocessing.std == config["std"]
    assert found.preprocessing.crop_pct == config["crop_pct"]
    assert found.preprocessing.interpolation == config["interpolation"]
    images = torch.rand(2, *vit.input_size)
    with torch.inference_mode():
        torch.testing.assert_close(found.model(images), model(images))


@pytest.mark.parametrize(
    "name",
    [
        "vit_small_patch16_224_dino",
        "vit_tiny_patch16_224_in21k",
        "vit_small_patch32_224.augreg_in21k",
        "deit3_small_patch16_224_in21ft1k",
    ],
)
def test_a_checkpoint_of_that_name(name: str, tmp_path: Path) -> None:
    model = trained(name, tmp_path / "c.pth.tar")
    found = load_checkpoint(tmp_path / "c.pth.tar", dense=True)
    as_timm(found, model)
    assert not found.assumed
    (warning,) = found.warnings
    assert warning.startswith("not in all as ")
    assert "depth 1 (12)" in warning


def test_names_on_the_hub_need_no_network_where_they_are_timms(tmp_path: Path) -> None:
    model = trained(DINO, tmp_path / "c.pth.tar", model=f"hf-hub:timm/{DINO}")
    content = torch.load(tmp_path / "c.pth.tar", weights_only=False)
    torch.save(content | {"arch": f"hf-hub:timm/{DINO}"}, tmp_path / "c.pth.tar")
    found = load_checkpoint(tmp_path / "c.pth.tar", dense=True)
    as_timm(found, model)
    assert f"hf-hub:timm/{DINO}: {DINO} of timm" in found.found


def test_anyones_repository_is_told_by_its_config_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "models--owner--birds"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    config: dict[str, Any] = {"architecture": "vit_small_patch16_224", "global_pool": "token"}
    config["pretrained_cfg"] = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_pct": 0.8}
    (snapshot / "config.json").write_text(json.dumps(config))
    trained("vit_small_patch16_224", tmp_path / "c.pth.tar")
    content = torch.load(tmp_path / "c.pth.tar", weights_only=False)
    name = "hf-hub:owner/birds"
    content |= {"arch": name, "args": argparse.Namespace(model=name)}
    torch.save(content, tmp_path / "c.pth.tar")
    found = load_checkpoint(tmp_path / "c.pth.tar", dense=True)
    assert (found.vit.name, found.vit.heads) == ("vit_small_patch16_224", 6)
    assert (found.preprocessing.mean, found.preprocessing.crop_pct) == ((0.1, 0.2, 0.3), 0.8)
    (snapshot / "config.json").write_text("[" * 100_000)
    assert load_checkpoint(tmp_path / "c.pth.tar", dense=True).vit.name == name


def test_a_tag_that_timm_does_not_have_leaves_the_normalisation_open(tmp_path: Path) -> None:
    trained("vit_small_patch16_224", tmp_path / "c.pth.tar")
    content = torch.load(tmp_path / "c.pth.tar", weights_only=False)
    torch.save(content | {"arch": "vit_small_patch16_224.mine"}, tmp_path / "c.pth.tar")
    found = load_checkpoint(tmp_path / "c.pth.tar", dense=True)
    assert (found.vit.heads, found.vit.norm_eps) == (6, 1e-6)
    assert {"mean", "std"} <= set(found.assumed)


def test_the_names_of_maes_script(tmp_path: Path) -> None:
    """16 heads of 80 channels, the average by a switch, its own crop; else it is asked."""
    model = timm.create_model(
        "vit_huge_patch14_224", img_size=28, depth=1, num_classes=7, global_pool="avg"
    ).eval()
    args = argparse.Namespace(model="vit_huge_patch14", global_pool=True, input_size=28)
    torch.save({"model": model.state_dict(), "args": args}, tmp_path / "h.pth")
    found = load_checkpoint(tmp_path / "h.pth", dense=True)
    assert (found.vit.heads, found.vit.pool, found.vit.image_size) == (16, "avg", (28, 28))
    assert found.answers["num_heads"].where == "vit_huge_patch14_224.mae (args.model)"
    assert (found.preprocessing.crop_pct, found.assumed) == (0.875, {})
    images = torch.rand(2, 3, 28, 28)
    with torch.inference_mode():
        torch.testing.assert_close(found.model(images), model(images))
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    with pytest.raises(InputError, match="width 1280, at which .* have 16.; state --num-heads"):
        load_checkpoint(tmp_path / "bare.pth", dense=True)


def test_stated_names() -> None:
    assert require("vit_small_patch16_224_dino").name == DINO
    with pytest.raises(InputError, match="no model 'vit_smal_patch16_224'; did you mean"):
        require("vit_smal_patch16_224")
    with pytest.raises(InputError, match=r"224.mine'; of vit_small_patch16_224 it has vit_small"):
        require("vit_small_patch16_224.mine")
    assert did_you_mean_model("qqqq") == ""


def other(tmp_path: Path, name: str, **kwargs: Any) -> Path:
    """A model of other arguments under a name."""
    model = timm.create_model(name, num_classes=3, depth=1, **kwargs)
    path = tmp_path / "c.pth"
    torch.save({"state_dict": model.state_dict(), "arch": "vit_tiny_patch16_224"}, path)
    return path


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("vit_tiny_patch16_224", {"embed_dim": 96}, r"width 96 \(by name 192\)"),
        ("vit_tiny_patch16_224", {"qk_norm": True}, r"qk-norm\) \(by name none\)"),
        ("vit_tiny_patch16_224", {"pre_norm": True}, "a norm before the blocks .* .by name none"),
        ("vit_tiny_patch16_224", {"scale_attn_norm": True}, "a norm inside attention"),
        ("vit_tiny_patch16_224", {"scale_mlp_norm": True}, "a norm inside the MLP"),
        ("deit_tiny_distilled_patch16_224", {}, "a distillation token"),
    ],
)
def test_weights_that_are_not_of_their_name(
    tmp_path: Path, name: str, kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint(other(tmp_path, name, **kwargs), Choices(num_heads=3), dense=True)
    assert "not those of vit_tiny_patch16_224 (arch)" in str(caught.value)


def test_weights_may_differ_from_their_name_in_size(tmp_path: Path) -> None:
    path = other(tmp_path, "vit_tiny_patch16_224", img_size=64, patch_size=8, in_chans=1)
    found = load_checkpoint(path, Choices(mean=(0.5,), std=(0.5,), num_heads=6), dense=True)
    assert found.warnings == (
        "not in all as vit_tiny_patch16_224 (arch) has it: depth 1 (12), heads 6 (3), images 64x64 "
        "(224x224), patches 8x8 (16x16), channels 1 (3), classes 3 (1000); the weights decide",
    )
    with pytest.raises(InputError, match="7 heads .--num-heads. do not divide"):
        load_checkpoint(path, Choices(mean=(0.5,), std=(0.5,), num_heads=7), dense=True)


def test_timms_own_warning_never_reaches_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained("vit_small_patch32_224", tmp_path / "c.pth")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        flags = ["--family", "m", "--r", "4", "-m", "vit_small_patch32_224_in21k"]
        shown = CliRunner().invoke(app, ["inspect", "c.pth", *flags])
    assert shown.exit_code == 0
    assert "vit_small_patch32_224.augreg_in21k" in shown.stdout
    assert not [one for one in caught if "deprecated" in str(one.message)]
