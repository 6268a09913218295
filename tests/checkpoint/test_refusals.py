"""What is refused before PyTorch is imported, and before anything is downloaded."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from ltmp_export import inspect
from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.statements.choices import Choices
from tests.conftest import DIGITS_LTMP, FIXTURES, load_torch
from tests.makers.checkpoint_contents import Hostile, drop, put
from tests.makers.commands import ltmp, run_without

State = dict[str, Any]
TWO_HEADS = Choices(num_heads=2)
MERGE_2 = "blocks.2.merge_masker.threshold"


def digits() -> State:
    content = load_torch(DIGITS_LTMP)
    return content | {"state_dict": dict(content["state_dict"])}


def dense() -> State:
    return {k: v for k, v in digits()["state_dict"].items() if "masker" not in k}


def small(classes: int = 4) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=28, patch_size=14, embed_dim=128, depth=2, num_heads=2, num_classes=classes,
        init_values=1e-5,
    )  # fmt: skip


def changed(change: Callable[[State], None], arch: str = "ltmp_vit_digits") -> State:
    content = digits() | {"arch": arch, "args": argparse.Namespace()}
    change(content)
    return content


def shape(*sizes: int) -> torch.Tensor:
    return torch.zeros(sizes)


BATCHNORM = {
    "layer1.0.bn1.weight": torch.ones(2),
    "layer1.0.bn1.num_batches_tracked": torch.tensor(3),
}
LORA = {"base_model.model.blocks.0.attn.qkv.lora_A.default.weight": torch.ones(4, 128)}
TALKING = dense() | {"blocks.0.attn.proj_l.weight": shape(2, 2)}
# What the file alone decides: its content, and what is said of it.
DECIDED: dict[str, tuple[Any, str]] = {
    "BatchNorm": (BATCHNORM, "it looks like a ResNet (layer1.0.bn1.weight)"),
    "adapter": (LORA, "lora_A.default.weight); merge the adapter into the model's weights first"),
    "features": (
        TALKING,
        "features that are not supported: talking heads (blocks.0.attn.proj_l.weight); expected a",
    ),
    "forbidden": ({"state_dict": Hostile(Path("mark"))}, "it asks to load posix.system"),
    "damaged": (b"PK\x03\x04 and no more", "is damaged or not a PyTorch checkpoint"),
    "thresholds only": (
        {k: v for k, v in digits()["state_dict"].items() if "masker" in k},
        "holds thresholds only; give the dense model's weights with --base-checkpoint",
    ),
    "NaN threshold": (changed(put(MERGE_2, torch.tensor([torch.nan]))), f"{MERGE_2} is nan"),
    "integers": (changed(put("head.bias", torch.ones(10).int())), "is torch.int32; expected"),
    "several": ({p + k: v for p in ("a.", "b.") for k, v in dense().items()}, "several models"),
}
UNCLASSED = {k: v for k, v in dense().items() if k != "cls_token"}
# Where the command says which family it is to be, besides.
IN_FAMILIES: dict[str, tuple[Any, str]] = {
    "ambiguous": (digits()["state_dict"], "state it with --family ltmp|ltpm"),
    "contradiction": (changed(lambda c: None, "ltm_vit"), "family ltm needs merge thresholds"),
    "no rate": (changed(lambda c: None, "mp_vit"), "family mp takes a fixed number of tokens"),
    "no class token": (
        {"arch": "multiscale_mergence_vit", "state_dict": UNCLASSED},
        "has no class token, which family multiscale_mergence needs; dpcknn, ",
    ),
    "a bias missing": (changed(drop("3.mlp.fc1.bias")), "1 missing (blocks.3.mlp.fc1.bias)"),
    "a block missing": (changed(drop("blocks.3.")), "block 3 has no weights, though block 5 has"),
    "one more": (changed(put("extra.weight", shape(1))), "1 unexpected (extra.weight)"),
}


def write(folder: Path, cases: Mapping[str, tuple[Any, str]]) -> None:
    for name, (content, _) in cases.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            torch.save(content, folder / name)


def commands(name: str) -> list[list[str]]:
    """Everything that takes a checkpoint, but inspect, which may describe what others refuse."""
    data = ["--data", "images.npz"]
    target = ["--reduction-target", "0.6"]
    return [
        ["export", name],
        ["check", "model.onnx", name],
        ["finetune", name, *data, *target],
        ["calibrate", name, "--images", "images.npz", *target],
        ["eval", name, *data],
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_the_file_decides_needs_no_pytorch(folder: Path) -> None:
    """One line for each command and file, in a process that has neither torch nor timm after."""
    write(folder, DECIDED | IN_FAMILIES | {"whole": (digits(), "")})
    (folder / "model.onnx").write_bytes(b"\x08")
    typed = [(c, message) for name, (_, message) in DECIDED.items() for c in commands(name)]
    typed += [(c, "missing does not exist; expected") for c in commands("missing")]
    typed += [(["export", name], message) for name, (_, message) in IN_FAMILIES.items()]
    typed += [
        (["export", "whole", "--family", "tom"], "no family 'tom'; choose from"),
        (["export", "whole", "--r", "8"], "state which with --family m|mp|p|pm (m is ToMe)"),
        (["check", "no.onnx", "whole"], "no.onnx does not exist"),
    ]
    told = run_without({"torch", "timm"}, [command for command, _ in typed], code=2)
    lines = told.strip().splitlines()
    assert len(lines) == len(typed)
    for line, (command, message) in zip(lines, typed, strict=True):
        assert line.startswith("error: "), command
        assert message in line, (command, line)
    assert not (folder / "mark").exists()


def test_inspect_describes_what_others_refuse_without_pytorch(folder: Path) -> None:
    described = ("BatchNorm", "adapter", "features", "thresholds only", "ambiguous")
    cases = {name: (DECIDED | IN_FAMILIES)[name] for name in described}
    write(folder, cases)
    told = run_without({"torch", "timm"}, [["inspect", name] for name in described])
    words = " ".join(told.split())
    for name, (_, message) in cases.items():
        assert message in words, name
    assert words.count("incomplete checkpoint") == len(cases)


def test_a_folder_with_an_adapter(folder: Path) -> None:
    (folder / "adapter_model.safetensors").touch()
    told = ltmp("export", str(folder))
    assert (told.exit_code, told.stdout) == (2, "")
    assert "holds an adapter alone (adapter_model.safetensors); merge the adapter" in told.stderr


def test_feature_extractors(folder: Path) -> None:
    """DINOv2's names with mask_token, and a classifier of what is not pooled."""
    bare = small(0).state_dict() | {"mask_token": shape(1, 128)}
    wide = {"linear_head.weight": torch.ones(4, 640)}
    for state, found in (
        (bare | wide, "linear_head.weight [4, 640] takes other numbers than the 128 that the"),
    ):
        torch.save(state, "c.pth")
        told = ltmp("export", "c.pth")
        assert (told.exit_code, len(told.stderr.splitlines())) == (2, 1)
        assert found in told.stderr


def test_the_head_of_a_clip_is_said_to_be_none(folder: Path) -> None:
    state = {f"module.visual.trunk.{key}": value for key, value in small().state_dict().items()}
    torch.save({"state_dict": state | {"module.logit_scale": torch.tensor(4.6)}}, "c.pth")
    found = " ".join(inspect("c.pth", TWO_HEADS)["found"])
    assert "trunk.head.weight: its head projects to CLIP's embeddings, not to classes" in found


def test_a_mask_token_is_left_out_and_said(folder: Path) -> None:
    model = small().eval()
    torch.save(model.state_dict() | {"mask_token": shape(1, 128)}, "c.pth")
    found = load_checkpoint("c.pth", Choices(num_heads=2, family="m", rate="1"))
    assert "left out: mask_token, which only pretraining uses" in found.found
    pixels = torch.randn(2, 3, 28, 28)
    with torch.inference_mode():
        assert torch.equal(found.model(pixels), model(pixels))
    made = ltmp("export", "c.pth", "--num-heads", "2", "--family", "m", "--r", "1")
    assert made.exit_code == 0, made.stderr


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("vit_base_patch16_224.dino", (), "holds no thresholds"),
        ("vit_relpos_small_patch16_224", (), "it looks like timm's VisionTransformerRelPos"),
        ("resnet18", (), "it looks like a ResNet"),
        ("deit_tiny_patch16_224", (), "--family m --r 8 needs none"),
        (
            "vit_base_patch16_siglip_gap_224",
            ("--family", "multiscale_mergence"),
            "has no class token, which family",
        ),
    ],
)
def test_timms_models_are_judged_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, more: tuple[str, ...], message: str
) -> None:
    def fetched(*arguments: Any, **options: Any) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetched)
    told = ltmp("export", f"timm:{name}", *more)
    assert told.exit_code == 2, told.exception
    assert told.stderr.startswith(f"error: timm:{name}")
    assert message in told.stderr
    if name in ("vit_relpos_small_patch16_224", "resnet18"):  # whatever the family
        assert message in ltmp("inspect", f"timm:{name}", "--num-heads", "3").stderr


def test_inspect_recommends_what_works(folder: Path) -> None:
    """Each command that it names is run as it names it."""
    torch.save(dense(), "c.pth")
    told = inspect("c.pth", TWO_HEADS)["missing"]
    assert "'ltmp calibrate' and 'ltmp finetune' make thresholds, and --family m --r 8" in told
    assert ltmp("export", "c.pth", "--num-heads", "2", "--family", "m", "--r", "8").exit_code == 0
    distilled = dense() | {
        "dist_token": shape(1, 1, 128), "pos_embed": torch.randn(1, 66, 128),
        "head_dist.weight": torch.randn(10, 128), "head_dist.bias": torch.zeros(10),
    }  # fmt: skip
    torch.save(distilled, "d.pth")
    told = inspect("d.pth", TWO_HEADS)["missing"]
    assert "'ltmp calibrate' and 'ltmp finetune' make thresholds" in told
    made = ltmp("export", "d.pth", "--num-heads", "2", "--family", "m", "--r", "8", "--no-check")
    assert made.exit_code == 0, made.stderr


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"pos_embed": torch.randn(1, 13, 128)}, "state the image size"),
        ({"head.bias": torch.full((10,), torch.nan)}, "head.bias holds NaN"),
    ],
)
def test_inspect_says_what_its_commands_need_first(folder: Path, change: State, first: str) -> None:
    torch.save(dense() | change, "c.pth")
    assert re.search(f"needs none; but first: .*{first}", inspect("c.pth", TWO_HEADS)["missing"])


def test_the_authors_thresholds_still_find_their_base(folder: Path, digits_base: Path) -> None:
    """A base that is no plain ViT is named, not the file with the thresholds."""
    torch.save(BATCHNORM, "resnet.pth")
    path = str(FIXTURES / "digits_ltm_thresholds.pth.tar")
    told = ltmp("export", path, "--base-checkpoint", "resnet.pth")
    assert told.stderr.startswith("error: resnet.pth: not a plain timm VisionTransformer")
