"""What weights do not tell: what is known, what is near-certain, and what is asked for."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from ltmp_export import load_checkpoint
from ltmp_export.backbones.vit.facts import Facts, Named, settle
from ltmp_export.commands import inspect
from ltmp_export.errors import InputError
from ltmp_export.statements.choices import Choices
from ltmp_export.statements.gather import Said, Statements, gather
from ltmp_export.statements.timm_names import TimmName, create, resolve
from tests.conftest import DIGITS_LTMP
from tests.makers.commands import ltmp
from tests.makers.stated import says

TARGET = "0.85"
TINY = "vit_tiny_patch16_224"


def weights(width: int, *keys: str) -> dict[str, torch.Tensor]:
    """What is looked at of a ViT's weights."""
    shapes = {"patch_embed.proj.weight": (width, 3, 4, 4), "blocks.0.attn.qkv.weight": (3 * width,)}
    shapes["cls_token"] = (1, 1, width)
    return {
        key: torch.empty(shape, device="meta")
        for key, shape in (shapes | dict.fromkeys(keys, (width,))).items()
    }


def settled(width: int, *keys: str, **said: Any) -> Facts:
    return settle(weights(width, *keys), None, says(**said), "c.pth")


@pytest.mark.parametrize(("width", "heads"), [(192, 3), (384, 6), (768, 12), (1024, 16)])
def test_heads_at_usual_widths(width: int, heads: int) -> None:
    found = settled(width)
    assert found.heads == heads
    assert all(answer.assumed for answer in found.answers.values())
    assert (found.act, found.norm_eps, found.pool) == ("gelu", 1e-6, "token")


@pytest.mark.parametrize("width", [64, 96, 128, 256, 320, 512, 640, 1152, 1280, 1408, 1664, 3072])
def test_heads_at_other_widths_are_asked_for(width: int) -> None:
    with pytest.raises(InputError, match="^c.pth: nothing tells the number of heads .* --num-head"):
        settled(width)
    assert settled(width, heads=4).answers["num_heads"].where == "--num-heads"
    authors = settled(width, authors=True) if width % 64 == 0 else None
    assert authors is None or authors.heads == width // 64
    if width % 64:
        with pytest.raises(InputError, match="--num-heads"):
            settled(width, assume_defaults=True)
    else:
        assert settled(width, assume_defaults=True).heads == width // 64


def test_a_hint_where_all_published_vits_have_16_heads() -> None:
    for width in (1280, 1408, 1664):
        with pytest.raises(InputError, match="published ViTs have 16"):
            settled(width)


def test_the_norm_of_queries_tells_the_heads() -> None:
    with_norm = weights(128) | {"blocks.0.attn.q_norm.weight": torch.empty(32, device="meta")}
    answer = settle(with_norm, None, says(), "c.pth").answers["num_heads"]
    assert (answer.value, answer.assumed) == (4, False)


def test_a_norm_before_the_blocks_leaves_activation_and_epsilon_open() -> None:
    with pytest.raises(InputError) as caught:
        settled(640, "norm_pre.weight")
    for flag in ("--num-heads", "--act gelu|gelu_tanh|quick_gelu|silu|relu", "--norm-eps"):
        assert flag in str(caught.value)
    act, eps = Said("quick_gelu", "--act"), Said(1e-5, "--norm-eps")
    found = settled(640, "norm_pre.weight", heads=10, act=act, norm_eps=eps)
    assert (found.act, found.norm_eps) == ("quick_gelu", 1e-5)
    assert [key for key, answer in found.answers.items() if answer.assumed] == ["pool"]
    assumed = settled(640, "norm_pre.weight", assume_defaults=True)
    assert (assumed.heads, assumed.act, assumed.norm_eps) == (10, "gelu", 1e-6)


def test_the_activation_of_what_may_be_a_siglip_is_asked_for() -> None:
    """Of timm's with attention pooling, or a mean alone, some have one GELU, some the other."""
    without = {k: v for k, v in weights(768).items() if k != "cls_token"}
    for given in (weights(768, "attn_pool.latent"), without):
        with pytest.raises(
            InputError, match=r"the activation \(SigLIP's .* --act gelu\|gelu_tanh,"
        ):
            settle(given, None, says(), "c.pth")
        act = Said("gelu_tanh", "--act")
        assert settle(given, None, says(act=act), "c.pth").act == "gelu_tanh"
        assert settle(given, None, says(assume_defaults=True), "c.pth").act == "gelu"
    for known in ("reg_token", "fc_norm.weight"):
        fixed = without | {known: torch.empty(1, 4, 768, device="meta")}
        assert settle(fixed, None, says(), "c.pth").act == "gelu"
    name = named("vit_so400m_patch16_siglip_256")
    assert settle(weights(1152, "attn_pool.latent"), name, says(), "c.pth").act == "gelu_tanh"


def test_pooling() -> None:
    assert settled(192, "fc_norm.weight").pool == "avg"
    assert settled(192, pool=Said("avg", "--pool")).pool == "avg"
    with pytest.raises(InputError, match="c.pth pools by 'map' .args.gp.; supported are token and"):
        settled(192, pool=Said("map", "args.gp"))


def named(name: str) -> Named:
    found = resolve(name)
    assert found is not None
    return Named(found, "arch", create(found.name))


def test_a_name_tells_all_but_an_average_that_leaves_no_trace() -> None:
    clip = named("vit_base_patch16_clip_quickgelu_224")
    found = settle(weights(768, "norm_pre.weight"), clip, says(trained=True), "c.pth")
    assert (found.heads, found.act, found.norm_eps, found.pool) == (12, "quick_gelu", 1e-5, "token")
    assert not any(answer.assumed for answer in found.answers.values())
    bare = settle(weights(768, "norm_pre.weight"), clip, says(), "c.pth")
    assert [key for key, answer in bare.answers.items() if answer.assumed] == ["pool"]


def test_a_name_with_a_norm_behind_the_average_and_weights_without() -> None:
    gap = Named(TimmName("some_gap"), "arch", vit(global_pool="avg"))
    with pytest.raises(InputError, match="the pooling .*has fc_norm.* --pool token.avg"):
        settle(weights(192), gap, says(trained=True), "c.pth")
    assert settle(weights(192, "fc_norm.weight"), gap, says(), "c.pth").pool == "avg"


def test_what_files_and_flags_say() -> None:
    """Flags before the file; timm's, MAE's and DeiT's words."""
    args = {"num_heads": 4, "gp": "avg", "act_layer": "quickgelu", "norm_eps": 1e-5}
    found = gather(args, Choices())
    assert found.heads == Said(4, "args.num_heads")
    assert found.pool == Said("avg", "args.gp")
    assert found.act == Said("quick_gelu", "args.act_layer")
    assert found.norm_eps == Said(1e-5, "args.norm_eps")
    over = gather(args, Choices(num_heads=2, pool="token", act="silu", norm_eps=1e-3))
    assert over.heads == Said(2, "--num-heads")
    assert (over.pool, over.act) == (Said("token", "--pool"), Said("silu", "--act"))
    assert gather({"global_pool": True}, Choices()).pool == Said("avg", "args.global_pool")
    assert gather({"global_pool": False}, Choices()).pool == Said("token", "args.global_pool")
    kwargs = gather({"model_kwargs": {"num_heads": 8, "no_embed_class": True}}, Choices())
    assert kwargs.heads == Said(8, "args.num_heads")
    assert kwargs.unplaced is True
    assert gather({"act_layer": "GELU"}, Choices()).act == Said("gelu", "args.act_layer")
    assert gather({"input_size": 56}, Choices()).stored_size == (56, 56)
    assert gather({"input_size": [3, 64, 32]}, Choices()).stored_size == (64, 32)
    odd = {"num_heads": "4", "gp": 3, "act_layer": ["gelu"], "norm_eps": 2.0, "model_kwargs": 1}
    assert gather(odd, Choices()) == Statements(trained=True)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (Choices(pool="max"), "--pool max: expected token, avg"),
        (Choices(act="tanh"), "--act tanh: expected gelu,"),
        (Choices(norm_eps=0.0), "--norm-eps 0: expected a number between 0 and 1"),
    ],
)
def test_stated_in_vain(choices: Choices, message: str) -> None:
    with pytest.raises(InputError, match=message):
        gather({}, choices)


def vit(**changed: Any) -> VisionTransformer:
    shape: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 192, "num_heads": 3}
    torch.manual_seed(0)
    return VisionTransformer(**(shape | {"depth": 1, "num_classes": 5} | changed)).eval()


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.save(vit().state_dict(), "c.pth")
    return tmp_path


def test_what_was_assumed_is_said_in_one_line_and_written(bare: Path) -> None:
    done = ltmp("export", "c.pth", "--family", "m", "--r", "2", "--no-check")
    assert done.exit_code == 0, done.output
    (line,) = (line for line in done.stderr.splitlines() if "assumed:" in line)
    for words in ("3 heads", "exact GELU", "epsilon 1e-06", "class-token pooling", "0.485"):
        assert words in line
    props = {p.key: p.value for p in onnx.load("model.onnx").metadata_props}
    assumed = json.loads(props["ltmp.assumed"])
    assert assumed["num_heads"] == 3
    assert (assumed["act"], assumed["norm_eps"], assumed["pool"]) == ("gelu", 1e-6, "token")
    assert assumed["mean"] == [0.485, 0.456, 0.406]
    stated = ["--num-heads", 3, "--act", "gelu", "--norm-eps", "1e-6", "--pool", "token"]
    stated += ["--mean", "0.5", "--std", "0.5"]
    done = ltmp("export", "c.pth", "--family", "m", "--r", "2", "--no-check", *stated)
    assert done.exit_code == 0, done.output
    props = {p.key: p.value for p in onnx.load("model.onnx").metadata_props}
    assert set(json.loads(props["ltmp.assumed"])) == {"crop_pct", "interpolation", "crop_mode"}


def test_inspect_says_who_tells(tmp_path: Path) -> None:
    found = inspect.inspect(DIGITS_LTMP)
    assert found["told_by"]["num_heads"] == {
        "value": 2, "where": "args.num_heads", "assumed": False,
    }  # fmt: skip
    assert found["told_by"]["act"]["assumed"]
    shown = ltmp("inspect", DIGITS_LTMP).stdout
    assert "num_heads: args.num_heads" in shown
    assert "assumed           activation exact GELU" in shown


def test_pictures_need_a_normalisation_that_is_known(bare: Path) -> None:
    """An export may assume ImageNet's; what measures on pictures asks, also for an exported one."""
    rng = np.random.default_rng(0)
    labels = np.arange(4) % 5
    pixels = rng.integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)
    np.savez("pixels.npz", images=pixels, labels=labels)
    np.savez("floats.npz", images=pixels.transpose(0, 3, 1, 2) / np.float32(255), labels=labels)
    ltmp("export", "c.pth", "--family", "m", "--r", "2", "--no-check")
    commands = [
        ("eval", "c.pth", "--data"),
        ("eval", "model.onnx", "--data"),
        ("calibrate", "c.pth", "--reduction-target", "0.7", "--images"),
        ("finetune", "c.pth", "--reduction-target", "0.7", "--data"),
        ("export", "c.pth", "--family", "m", "--r", "2", "--precision", "int8",
         "--calibration-images"),
    ]  # fmt: skip
    for command in commands:
        refused = ltmp(*command, "pixels.npz")
        assert refused.exit_code == 2, refused.output
        assert "nothing tells the mean and deviation" in refused.stderr
        assert "--mean" in refused.stderr
    for model in ("c.pth", "model.onnx"):
        assert ltmp("eval", model, "--data", "floats.npz").exit_code == 0
    assert ltmp("eval", "c.pth", "--data", "pixels.npz", "--assume-defaults").exit_code == 0
    ltmp("export", "c.pth", "--family", "m", "--r", "2", "--no-check", "--assume-defaults")
    assert ltmp("eval", "model.onnx", "--data", "pixels.npz").exit_code == 0


def test_what_is_assumed_stays_assumed_in_files_of_this_tool(bare: Path) -> None:
    images = np.random.default_rng(0).normal(size=(16, 3, 32, 32)).astype(np.float32)
    np.savez("i.npz", images=images)
    calibrate = ("calibrate", "c.pth", "--images", "i.npz", "--reduction-target", TARGET)
    done = ltmp(*calibrate, "-o", "k.pt")
    assert done.exit_code == 0, done.output
    made = load_checkpoint("k.pt")
    assert {"num_heads", "act", "norm_eps", "pool", "mean", "std"} <= set(made.assumed)
    stated = ("--num-heads", 2, "--act", "silu", "--mean", "0.5", "--std", "0.5", "--pool", "avg")
    done = ltmp(*calibrate, "-o", "k.pt", *stated)
    assert done.exit_code == 0, done.output
    made = load_checkpoint("k.pt")
    assert set(made.assumed) == {"norm_eps", "crop_pct", "interpolation", "crop_mode"}
    assert (made.vit.heads, made.vit.activation, made.vit.pool) == (2, "silu", "avg")


def test_an_average_that_leaves_no_trace_is_there_when_asked_for(tmp_path: Path) -> None:
    """Also under a name; the class token, which is taken otherwise, gives something else."""
    model = vit(global_pool="avg", fc_norm=False)
    torch.save(model.state_dict(), tmp_path / "avg.pth")
    images = torch.rand(2, 3, 32, 32)
    for name in (None, "vit_tiny_patch16_224"):
        taken = load_checkpoint(tmp_path / "avg.pth", Choices(model=name), dense=True)
        assert "class-token pooling (--pool)" in taken.notes
        stated = Choices(model=name, pool="avg")
        found = load_checkpoint(tmp_path / "avg.pth", stated, dense=True)
        with torch.inference_mode():
            torch.testing.assert_close(found.model(images), model(images))
            assert (taken.model(images) - model(images)).abs().max() > 0.1


def hub_folder(path: Path, model: VisionTransformer, **config: Any) -> Path:
    """A folder as timm pushes it to the Hub."""
    path.mkdir()
    save_file(model.state_dict(), path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"architecture": TINY, **config}))
    return path


def test_the_size_of_a_configuration_is_that_of_the_model_it_began_with(tmp_path: Path) -> None:
    """Arguments of the model come before it; 13 by 15 patches are as many as 14 by 14 less one."""
    model = vit(img_size=(208, 240), patch_size=16)
    began = {"input_size": [3, 224, 224], "mean": [0.5] * 3, "std": [0.5] * 3}
    folder = hub_folder(
        tmp_path / "a", model, pretrained_cfg=began, model_args={"img_size": [208, 240]}
    )
    assert load_checkpoint(folder, dense=True).vit.image_size == (208, 240)
    alone = hub_folder(tmp_path / "b", model, pretrained_cfg=began)
    with pytest.raises(InputError, match="state the image size .* 208x240, 240x208$|240x208, 208"):
        load_checkpoint(alone, dense=True)
    found = load_checkpoint(alone, Choices(image_size=(208, 240)), dense=True)
    images = torch.rand(2, 3, 208, 240)
    with torch.inference_mode():
        torch.testing.assert_close(found.model(images), model(images))
    small = hub_folder(tmp_path / "c", vit(), pretrained_cfg=began, global_pool="token")
    read = load_checkpoint(small, dense=True)
    assert read.vit.image_size == (32, 32)
    assert read.answers["pool"].where == "config.json: gp"


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"model_kwargs": {"act_layer": "mish"}}, "activation"),
        ({"model_kwargs": {"norm_layer": "rmsnorm"}}, "states norm_layer 'rmsnorm'"),
        ({"gp": "avgmaxc"}, "pools by 'avgmaxc' .args.gp."),
    ],
)
def test_what_a_file_states_and_is_not_supported_is_refused(
    tmp_path: Path, stated: dict[str, Any], message: str
) -> None:
    content = {"state_dict": vit().state_dict(), "arch": TINY}
    torch.save(content | {"args": argparse.Namespace(**stated)}, tmp_path / "c.pth")
    with pytest.raises(InputError, match=message):
        load_checkpoint(tmp_path / "c.pth", dense=True)


def test_a_name_with_arguments_is_the_model_that_timm_builds_with_them(tmp_path: Path) -> None:
    kwargs = {"embed_dim": 160, "num_heads": 5, "qk_norm": True}
    model = vit(**kwargs)
    content = {"state_dict": model.state_dict(), "arch": TINY}
    torch.save(content | {"args": argparse.Namespace(model_kwargs=kwargs)}, tmp_path / "c.pth")
    found = load_checkpoint(tmp_path / "c.pth", dense=True)
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(found.model(images), model(images))


@pytest.mark.parametrize(
    ("args", "assumed"), [({"lr": 0.1}, True), ({"gp": None}, False), ({"gp": "token"}, False)]
)
def test_only_a_script_that_asks_for_pooling_tells_it(
    tmp_path: Path, args: dict[str, Any], assumed: bool
) -> None:
    content = {"state_dict": vit().state_dict(), "arch": TINY}
    torch.save(content | {"args": argparse.Namespace(**args)}, tmp_path / "c.pth")
    assert ("pool" in load_checkpoint(tmp_path / "c.pth", dense=True).assumed) is assumed


def test_a_norm_over_all_heads_tells_no_number_of_them() -> None:
    with_norm = weights(192) | {"blocks.0.attn.q_norm.weight": torch.empty(192, device="meta")}
    assert settle(with_norm, None, says(), "c.pth").answers["num_heads"].assumed


def test_inspect_tells_of_a_dense_model_and_an_exported_one(bare: Path) -> None:
    shown = ltmp("inspect", "c.pth").stdout
    for words in ("architecture", "3 heads", "assumed", "exact GELU", "missing"):
        assert words in shown
    ltmp("export", "c.pth", "--family", "m", "--r", "2", "--no-check")
    assert "class-token pooling" in ltmp("inspect", "model.onnx").stdout
