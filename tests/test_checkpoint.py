"""What checkpoints say, what must be asked for, and what is refused."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from ltmp_export import files
from ltmp_export.checkpoint import Checkpoint, Choices, load_checkpoint, split_arch
from ltmp_export.errors import InputError
from tests.conftest import DIGITS_LTMP, FIXTURES
from tests.make_checkpoint import random_vit

Content = dict[str, Any]
Write = Callable[..., Path]


@pytest.fixture
def content() -> Content:
    """The digits checkpoint, free to be changed: state_dict is a fresh dictionary."""
    top = dict(files.read_weights(DIGITS_LTMP))
    return top | {"state_dict": dict(top["state_dict"]), "args": vars(top["args"]).copy()}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Save a changed checkpoint, `args` as the Namespace timm writes."""

    def save(content: Mapping[str, Any]) -> Path:
        content = dict(content)
        if "args" in content:
            content["args"] = argparse.Namespace(**content["args"])
        torch.save(content, tmp_path / "changed.pth.tar")
        return tmp_path / "changed.pth.tar"

    return save


def same_weights(a: Checkpoint, b: Checkpoint) -> bool:
    left, right = a.model.state_dict(), b.model.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_authors_checkpoint(digits: Callable[[str], Checkpoint]) -> None:
    found = load_checkpoint(DIGITS_LTMP)
    assert found.arch == "ltmp_vit_digits_patch4_32"
    assert found.plan.family == "ltmp"
    assert found.plan.thresholds()["merge"][1] == pytest.approx(0.80978197)
    vit = found.vit
    assert (vit.name, vit.image_size, vit.patch_size) == ("vit_digits_patch4_32", (32, 32), (4, 4))
    assert (vit.depth, vit.width, vit.heads, vit.mlp_width, vit.classes) == (6, 128, 2, 512, 10)
    assert found.preprocessing.mean == (0.5, 0.5, 0.5)
    assert found.preprocessing.interpolation == "bilinear"
    assert found.notes == (
        "2 heads of 64 channels",
        "exact GELU, LayerNorm epsilon 1e-6, token pooling",
    )
    assert not found.warnings


def forms(content: Content, tmp_path: Path) -> dict[str, Path]:
    """The same model in each form a file may have."""
    state = content["state_dict"]
    tops: dict[str, Any] = {
        "bare": state,
        "model key": {"model": state},
        "ddp and compile": {"state_dict": {f"module._orig_mod.{k}": v for k, v in state.items()}},
        "compile and ddp": {"state_dict": {f"_orig_mod.module.{k}": v for k, v in state.items()}},
        "inference name": {"state_dict": state, "arch": "inference_ltmp_vit_digits"},
        "arch in args": {"state_dict": state, "args": {"model": "ltmp_vit_digits"}},
    }
    paths = {}
    for number, (name, top) in enumerate(tops.items()):
        paths[name] = tmp_path / f"{number}.pth"
        torch.save(top, paths[name])
    paths["safetensors"] = tmp_path / "model.safetensors"
    save_file(state, paths["safetensors"])
    return paths


def test_every_form_is_the_same_model(content: Content, tmp_path: Path) -> None:
    whole = load_checkpoint(DIGITS_LTMP)
    for name, path in forms(content, tmp_path).items():
        found = load_checkpoint(path, Choices(family="ltmp"))
        assert found.plan == whole.plan, name
        assert same_weights(found, whole), name


def test_half_precision_weights_become_float32(content: Content, write: Write) -> None:
    content["state_dict"] = {
        k: v.bfloat16() if "threshold" not in k else v for k, v in content["state_dict"].items()
    }
    model = load_checkpoint(write(content)).model
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_ema_is_taken_only_when_asked(content: Content, write: Write) -> None:
    plain = load_checkpoint(DIGITS_LTMP)
    with pytest.raises(InputError, match="holds no EMA weights"):
        load_checkpoint(DIGITS_LTMP, Choices(use_ema=True))
    averaged = dict(content["state_dict"])
    averaged["head.bias"] = averaged["head.bias"] + 1
    path = write(content | {"state_dict_ema": averaged})
    assert same_weights(load_checkpoint(path), plain)
    taken = load_checkpoint(path, Choices(use_ema=True)).model
    assert torch.equal(taken.head.bias, plain.model.head.bias + 1)
    with pytest.raises(InputError, match="EMA weights only; take them with --use-ema"):
        load_checkpoint(write({"state_dict_ema": averaged}))


def test_thresholds_only(digits_base: Path) -> None:
    path = FIXTURES / "digits_ltp_thresholds.pth.tar"
    with pytest.raises(InputError, match="thresholds only; .* --base-checkpoint"):
        load_checkpoint(path)
    with pytest.raises(InputError, match="holds no weights either"):
        load_checkpoint(path, Choices(base_checkpoint=path))
    with pytest.raises(InputError, match="weights of its own; drop --base-checkpoint"):
        load_checkpoint(DIGITS_LTMP, Choices(base_checkpoint=digits_base))
    assert load_checkpoint(path, Choices(base_checkpoint=digits_base)).plan.family == "ltp"


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("ltmp_deit_small_patch16_224", ("ltmp", "deit_small_patch16_224")),
        ("inference_ltpm_deit_base_patch16_384", ("ltpm", "deit_base_patch16_384")),
        ("mp_vit_base_patch16_224", ("mp", "vit_base_patch16_224")),
        ("deit_small_patch16_224", (None, "deit_small_patch16_224")),
        (None, (None, None)),
    ],
)
def test_split_arch(arch: str | None, expected: tuple[str | None, str | None]) -> None:
    assert split_arch(arch) == expected


def test_ambiguous_family_is_asked_for(content: Content, write: Write) -> None:
    path = write({"state_dict": content["state_dict"]})
    with pytest.raises(InputError, match=r"ltmp or ltpm.*--family ltmp\|ltpm"):
        load_checkpoint(path)
    assert load_checkpoint(path, Choices(family="ltpm")).plan.family == "ltpm"


def test_family_follows_from_the_thresholds_where_it_can(content: Content, write: Write) -> None:
    for kind, family in (("merge", "ltm"), ("prune", "ltp")):
        state = {k: v for k, v in content["state_dict"].items()
                 if "masker" not in k or f"{kind}_masker" in k}  # fmt: skip
        assert load_checkpoint(write({"state_dict": state})).plan.family == family


def test_stated_family_wins_with_a_warning() -> None:
    found = load_checkpoint(DIGITS_LTMP, Choices(family="ltpm"))
    assert found.plan.family == "ltpm"
    assert found.warnings == ("family ltpm as asked, though the file says ltmp",)


MERGE_2 = "blocks.2.merge_masker.threshold"
QKV_2 = "blocks.2.attn.qkv.weight"


def drop(*parts: str) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        state = content["state_dict"]
        for key in [k for k in state if any(part in k for part in parts)]:
            del state[key]

    return change


def put(key: str, value: torch.Tensor) -> Callable[[Content], None]:
    return lambda content: content["state_dict"].__setitem__(key, value)


def rename(arch: str) -> Callable[[Content], None]:
    return lambda content: content.update(arch=arch)


REFUSED: dict[str, tuple[Callable[[Content], None], str]] = {
    "NaN threshold": (put(MERGE_2, torch.tensor([torch.nan])), f"{MERGE_2} is nan"),
    "threshold above 1": (put(MERGE_2, torch.tensor([1.01])), f"{MERGE_2} is 1.0.*in .0, 1."),
    "threshold below 0": (put(MERGE_2, torch.tensor([-0.1])), r"\[0, 1\]"),
    "threshold of two": (put(MERGE_2, torch.ones(2)), "expected one float"),
    "no thresholds": (drop("masker"), "holds no thresholds"),
    "a threshold missing": (drop(MERGE_2), r"merge thresholds missing in blocks \[2\]"),
    "a kind missing": (drop("merge_masker"), "ltmp needs merge and prune"),
    "threshold without block": (
        put("blocks.6.merge_masker.threshold", torch.ones(1)),
        r"of blocks \[6\] without weights",
    ),
    "a block missing": (drop("blocks.3."), "block 3 has no weights, though block 5 has"),
    "a bias missing": (drop("blocks.3.mlp.fc1.bias"), "1 missing .blocks.3.mlp.fc1.bias"),
    "an extra key": (put("blocks.1.gate.weight", torch.ones(1)), "1 unexpected .blocks.1.gate"),
    "NaN weight": (put(QKV_2, torch.full((384, 128), torch.nan)), f"{QKV_2} holds NaN"),
    "misshapen weight": (put(QKV_2, torch.ones(3, 128)), rf"1 misshapen .{QKV_2} \(3, 128\)"),
    "flat head": (put("head.weight", torch.ones(10)), "head.weight has shape"),
    "distillation": (put("dist_token", torch.ones(1, 1, 128)), "'dist_token'"),
    "registers": (put("reg_token", torch.ones(1, 4, 128)), "'reg_token'"),
    "no class token": (drop("cls_token"), "cls_token missing"),
    "no classifier": (drop("head"), "head.weight missing"),
    "a block far away": (put("blocks.3000000.x", torch.ones(1)), "block 6 has no weights, though"),
    "integers": (put(QKV_2, torch.ones(384, 128, dtype=torch.int8)), "expected a dense float"),
    "sparse": (put(QKV_2, torch.zeros(384, 128).to_sparse()), "expected a dense float tensor"),
    "complex": (
        put(QKV_2, torch.zeros(384, 128, dtype=torch.complex64)),
        "expected a dense float tensor",
    ),
    "claims": (put(QKV_2, torch.zeros(1).expand(10**6, 10**6)), "holds fewer numbers"),
    "key twice": (put("module.head.bias", torch.ones(10)), "head.bias is there twice"),
    "nothing": (lambda c: c["state_dict"].clear(), "state_dict is empty"),
    "bad mean": (lambda c: c["args"].update(mean=["x"] * 3), "expected 3 finite numbers"),
    "no number": (lambda c: c["state_dict"].update(epoch=3), "epoch is a int"),
    "another model": (rename("ltmp_deit_small_patch16_224"), "not those of deit_small"),
    "not a ViT name": (rename("ltmp_resnet50"), "resnet50 is a ResNet; expected a plain"),
    "contradictory family": (rename("ltm_vit_digits"), "family ltm needs merge thresholds"),
    "fixed rate": (rename("mp_vit_digits"), "fixed-rate family 'mp' is not supported"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_the_reason(
    content: Content, write: Write, change: Callable[[Content], None], message: str
) -> None:
    change(content)
    with pytest.raises(InputError, match=message):
        load_checkpoint(write(content))


def test_other_architectures(tmp_path: Path) -> None:
    torch.save({"layer4.0.conv1.weight": torch.ones(2), MERGE_2: torch.ones(1)}, tmp_path / "r.pth")
    with pytest.raises(InputError, match="not a timm ViT: no key starts with 'blocks.'"):
        load_checkpoint(tmp_path / "r.pth")
    torch.save({"epoch": 3}, tmp_path / "e.pth")
    with pytest.raises(InputError, match="holds no weights: found epoch"):
        load_checkpoint(tmp_path / "e.pth")


@pytest.mark.parametrize(
    "args",
    [
        {"img_size": ["a", "b"]},
        {"img_size": [32, None]},
        {"img_size": -32},
        {"input_size": ["3", "32", "32"]},
        {"crop_pct": "abc"},
        {"crop_pct": float("nan")},
        {"interpolation": "zzz"},
        {"model": torch.zeros(2)},
    ],
)
def test_arguments_of_no_use_are_passed_over(
    content: Content, write: Write, args: dict[str, Any]
) -> None:
    content["args"].update(args)
    found = load_checkpoint(write(content))
    assert found.vit.image_size == (32, 32)
    assert 0 < found.preprocessing.crop_pct <= 1
    assert found.preprocessing.interpolation in ("bilinear", "bicubic")


def test_a_bare_thresholds_file_takes_name_and_arguments_of_its_base(
    content: Content, tmp_path: Path
) -> None:
    state = content["state_dict"]
    torch.save({k: v for k, v in state.items() if "masker" in k}, tmp_path / "thresholds.pth")
    found = load_checkpoint(tmp_path / "thresholds.pth", Choices(base_checkpoint=DIGITS_LTMP))
    assert (found.plan.family, found.vit.name) == ("ltmp", "vit_digits_patch4_32")
    assert found.preprocessing.mean == (0.5, 0.5, 0.5)
    assert found.base_sha256 == files.sha256(DIGITS_LTMP)


def test_ema_of_the_base(content: Content, write: Write, tmp_path: Path) -> None:
    state = content["state_dict"]
    torch.save({k: v for k, v in state.items() if "masker" in k}, tmp_path / "thresholds.pth")
    base = write({"state_dict_ema": state, "arch": "ltmp_vit_digits"})
    choices = Choices(base_checkpoint=base, use_ema=True)
    assert load_checkpoint(tmp_path / "thresholds.pth", choices).plan.family == "ltmp"


def test_grey_images_need_their_normalisation(write: Write) -> None:
    model = random_vit("vit", 0, img_size=8, patch_size=4, embed_dim=64, depth=1, num_heads=1,
                       num_classes=2, in_chans=1)  # fmt: skip
    path = write(state_of(model, 1))
    with pytest.raises(InputError, match="expected 1 finite numbers.* --mean and --std"):
        load_checkpoint(path)
    assert load_checkpoint(path, Choices(mean=(0.5,), std=(0.2,))).preprocessing.mean == (0.5,)


def test_initial_thresholds_are_a_warning(content: Content, write: Write) -> None:
    for key in content["state_dict"]:
        if "masker" in key:
            content["state_dict"][key] = torch.tensor([0.9 if "merge" in key else 0.0])
    assert "never fine-tuned" in load_checkpoint(write(content)).warnings[0]


def test_unknown_model_name_suggests() -> None:
    with pytest.raises(InputError, match="did you mean: .*deit_small"):
        load_checkpoint(DIGITS_LTMP, Choices(model="deit_smal_patch16_224"))


def state_of(model: VisionTransformer, depth: int) -> Content:
    thresholds = {f"blocks.{i}.prune_masker.threshold": torch.tensor([0.01]) for i in range(depth)}
    return {"state_dict": model.state_dict() | thresholds}


def test_geometry_that_shapes_do_not_tell_is_asked_for(write: Write) -> None:
    narrow = random_vit("vit", 0, img_size=(16, 12), patch_size=4, embed_dim=48, depth=2,
                        num_heads=3, num_classes=5)  # fmt: skip
    path = write(state_of(narrow, 2))
    with pytest.raises(InputError, match="13 rows, which is no square"):
        load_checkpoint(path)
    with pytest.raises(InputError, match="gives 4 patches, but .* 13 rows"):
        load_checkpoint(path, Choices(image_size=(8, 8)))
    with pytest.raises(InputError, match="number of heads is not in the file"):
        load_checkpoint(path, Choices(image_size=(16, 12)))
    with pytest.raises(InputError, match="--num-heads 5 does not divide"):
        load_checkpoint(path, Choices(image_size=(16, 12), num_heads=5))
    found = load_checkpoint(path, Choices(image_size=(16, 12), num_heads=3))
    assert (found.vit.image_size, found.vit.heads) == ((16, 12), 3)


def test_an_assumed_square_is_said(write: Write) -> None:
    model = random_vit("vit", 0, img_size=(16, 8), patch_size=4, embed_dim=64, depth=1,
                       num_heads=1, num_classes=5)  # fmt: skip
    found = load_checkpoint(write(state_of(model, 1)))  # 2 x 4 patches and a class token: 9 rows
    assert found.notes[0].startswith("images 12x12 without position embedding of the class token")


def test_features_follow_from_keys(write: Write) -> None:
    features = {"qk_norm": True, "init_values": 0.1, "pre_norm": True, "global_pool": "avg"}
    model = random_vit("vit", 0, img_size=20, patch_size=5, embed_dim=32, depth=2, num_heads=4,
                       num_classes=5, mlp_ratio=2.5, qkv_bias=False, **features)  # fmt: skip
    found = load_checkpoint(write(state_of(model, 2)))
    assert (found.vit.heads, found.vit.mlp_width, found.vit.pool) == (4, 80, "avg")
    images = torch.randn(3, 3, 20, 20)
    with torch.inference_mode():
        torch.testing.assert_close(found.model(images), model.eval()(images))


def test_known_name_gives_what_shapes_do_not(write: Write) -> None:
    name = "vit_base_patch32_clip_224"  # pre-norm, LayerNorm eps 1e-5, 12 heads, its own mean
    model = random_vit(name, 0, num_classes=3)
    found = load_checkpoint(write(state_of(model, 12) | {"arch": f"ltp_{name}"}))
    assert (found.vit.name, found.vit.heads, found.vit.norm_eps) == (name, 12, 1e-5)
    assert found.preprocessing.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert not found.notes


def test_weights_of_another_depth_than_the_name_decide(write: Write) -> None:
    name = "deit_tiny_patch16_224"
    model = random_vit(name, 0, depth=2, patch_size=32, num_classes=3)
    found = load_checkpoint(write(state_of(model, 2) | {"arch": f"ltp_{name}"}))
    assert (found.vit.depth, found.vit.patch_size) == (2, (32, 32))
    assert found.notes == (
        f"depth 2 as the weights have it, though {name} has 12",
        f"patch_size (32, 32) as the weights have it, though {name} has (16, 16)",
    )


@pytest.mark.parametrize(
    ("name", "feature"),
    [
        ("vit_base_patch32_siglip_256", "'attn_pool.latent'"),
        ("vit_small_patch14_reg4_dinov2", "'reg_token'"),
        ("deit_tiny_distilled_patch16_224", "'dist_token'"),
    ],
)
def test_unsupported_architectures_are_refused_by_name(
    write: Write, name: str, feature: str
) -> None:
    import timm

    model = timm.create_model(name, depth=1, num_classes=2)
    with pytest.raises(InputError, match=feature):
        load_checkpoint(write(state_of(model, 1) | {"arch": f"ltp_{name}"}))


def test_a_feature_of_timm_the_reference_lacks_is_noticed(
    content: Content, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = VisionTransformer.forward_head
    monkeypatch.setattr(VisionTransformer, "forward_head", lambda s, x: plain(s, x) * 1.01)
    with pytest.raises(InputError, match="timm's own forward .* a feature that is not supported"):
        load_checkpoint(write(content))
