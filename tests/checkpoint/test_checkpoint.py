"""What checkpoints say, what must be asked for, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.files import disk
from ltmp_export.statements.choices import Choices
from tests.conftest import DIGITS_LTMP, FIXTURES, state_of
from tests.makers.make_checkpoint import random_vit

Content = dict[str, Any]
Write = Callable[..., Path]


def same_weights(a: Checkpoint, b: Checkpoint) -> bool:
    left, right = a.model.state_dict(), b.model.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_authors_checkpoint(digits: Callable[[str], Checkpoint]) -> None:
    found = digits("ltmp")
    assert found.arch == "ltmp_vit_digits_patch4_32"
    assert found.plan.family == "ltmp"
    assert found.plan.thresholds()["merge"][1] == pytest.approx(0.80978197)
    assert found.preprocessing.interpolation == "bilinear"
    assert found.assumed == {"act": "gelu", "norm_eps": 1e-6, "pool": "token"}
    assert found.notes == (
        "activation exact GELU (--act)",
        "LayerNorm epsilon 1e-06 (--norm-eps)",
        "class-token pooling (--pool)",
    )


def test_demo_checkpoint() -> None:
    found = load_checkpoint(DIGITS_LTMP)
    assert found.arch == "ltmp_vit_digits_patch4_32"
    assert found.plan.family == "ltmp"
    assert found.plan.thresholds()["merge"][1] == pytest.approx(0.907877, abs=1e-6)
    vit = found.vit
    assert (vit.name, vit.image_size, vit.patch_size) == ("vit_digits_patch4_32", (32, 32), (4, 4))
    assert (vit.depth, vit.width, vit.heads, vit.mlp_width, vit.classes) == (6, 128, 2, 512, 10)
    assert found.preprocessing.mean == (0.5, 0.5, 0.5)
    assert found.preprocessing.interpolation == "bicubic"
    assert found.assumed == {"act": "gelu", "norm_eps": 1e-6}
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
        found = load_checkpoint(path, Choices(family="ltmp", num_heads=2))
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
    alone = write({"state_dict_ema": averaged, "arch": "ltmp_vit_digits"})
    taken = load_checkpoint(alone)
    assert torch.equal(taken.model.head.bias, plain.model.head.bias + 1)
    assert "averaged weights (state_dict_ema): there are no others" in taken.found
    with pytest.raises(InputError, match="averaged weights only; drop --no-ema"):
        load_checkpoint(alone, Choices(use_ema=False))


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
    assert families.split_arch(arch) == expected


def test_ambiguous_family_is_asked_for(content: Content, write: Write) -> None:
    path = write({"state_dict": content["state_dict"]})
    with pytest.raises(InputError, match=r"ltmp or ltpm.*--family ltmp\|ltpm"):
        load_checkpoint(path)
    assert load_checkpoint(path, Choices(family="ltpm", num_heads=2)).plan.family == "ltpm"


def test_family_follows_from_the_thresholds_where_it_can(content: Content, write: Write) -> None:
    for kind, family in (("merge", "ltm"), ("prune", "ltp")):
        state = {k: v for k, v in content["state_dict"].items()
                 if "masker" not in k or f"{kind}_masker" in k}  # fmt: skip
        found = load_checkpoint(write({"state_dict": state}), Choices(num_heads=2))
        assert found.plan.family == family


def test_stated_family_wins_with_a_warning() -> None:
    found = load_checkpoint(DIGITS_LTMP, Choices(family="ltpm"))
    assert found.plan.family == "ltpm"
    assert found.warnings == ("family ltpm as asked, though the file says ltmp",)


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
    choices = Choices(base_checkpoint=DIGITS_LTMP)
    with pytest.raises(InputError, match="fit ltmp or ltpm"):  # the base's family tells nothing
        load_checkpoint(tmp_path / "thresholds.pth", choices)
    choices = Choices(base_checkpoint=DIGITS_LTMP, family="ltmp")
    found = load_checkpoint(tmp_path / "thresholds.pth", choices)
    assert (found.plan.family, found.vit.name) == ("ltmp", "vit_digits_patch4_32")
    (warning,) = found.warnings
    assert warning.endswith("holds thresholds of its own, which are not used")
    assert found.preprocessing.mean == (0.5, 0.5, 0.5)
    assert found.base_sha256 == disk.sha256(DIGITS_LTMP)


def test_ema_of_the_base(content: Content, write: Write, tmp_path: Path) -> None:
    state = content["state_dict"]
    torch.save({k: v for k, v in state.items() if "masker" in k}, tmp_path / "thresholds.pth")
    base = write({"state_dict_ema": state, "arch": "ltmp_vit_digits"})
    choices = Choices(base_checkpoint=base, use_ema=True, family="ltmp", num_heads=2)
    assert load_checkpoint(tmp_path / "thresholds.pth", choices).plan.family == "ltmp"


def test_grey_images_need_their_normalisation(write: Write) -> None:
    model = random_vit("vit", 0, img_size=8, patch_size=4, embed_dim=64, depth=1, num_heads=1,
                       num_classes=2, in_chans=1)  # fmt: skip
    path = write(state_of(model, 1))
    with pytest.raises(InputError, match="expected 1 finite numbers.* --mean and --std"):
        load_checkpoint(path, Choices(num_heads=1))
    stated = Choices(num_heads=1, mean=(0.5,), std=(0.2,))
    assert load_checkpoint(path, stated).preprocessing.mean == (0.5,)


def test_initial_thresholds_are_a_warning(content: Content, write: Write) -> None:
    for key in content["state_dict"]:
        if "masker" in key:
            content["state_dict"][key] = torch.tensor([0.9 if "merge" in key else 0.0])
    assert "never fine-tuned" in load_checkpoint(write(content)).warnings[0]
