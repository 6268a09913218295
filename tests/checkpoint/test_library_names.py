"""Names of other libraries in files without a configuration, and what is refused or asked for."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.checkpoint.refusals import require_takeable
from ltmp_export.errors import InputError
from ltmp_export.statements.choices import Choices
from tests.documents.libraries import ROWS, Row
from tests.makers.commands import ltmp
from tests.makers.library_numbers import images, numbers
from tests.tolerances import OTHER_LIBRARY

State = dict[str, Any]
SIZES: State = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
TWO_HEADS = Choices(num_heads=2)


def drawn(model: torch.nn.Module) -> Any:
    """A model with numbers by name."""
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict({k: torch.from_numpy(v) for k, v in numbers(shapes).items()})
    return model.eval()


def require_the_same(path: Path, expected: Any, choices: Choices = TWO_HEADS) -> Any:
    """Check that the file at `path` is the model `expected`."""
    found = load_checkpoint(path, choices, dense=True)
    pixels = torch.from_numpy(images(32))
    with torch.inference_mode():
        theirs = expected(pixels)
        worst = (found.model(pixels) - theirs).abs().max() / theirs.abs().max()
    assert worst < OTHER_LIBRARY, worst
    return found


def test_torchvisions_vit(tmp_path: Path) -> None:
    model = drawn(torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 48, num_classes=5))
    torch.save({"model": model.state_dict()}, tmp_path / "c.pth")
    found = require_the_same(tmp_path / "c.pth", model)
    assert {key: found.answers[key].where for key in ("act", "norm_eps", "pool")} == dict.fromkeys(
        ("act", "norm_eps", "pool"), "the code of torchvision"
    )


def mmpretrain(state: State, averaged: bool) -> State:
    """Weights of timm's ViT under the names in MMPretrain's source."""
    made = {}
    for key, value in state.items():
        name = key.replace("patch_embed.proj", "patch_embed.projection")
        name = name.replace("mlp.fc1", "ffn.layers.0.0").replace("mlp.fc2", "ffn.layers.1")
        name = name.replace("ls1.gamma", "attn.gamma1.weight")
        name = name.replace("ls2.gamma", "ffn.gamma2.weight")
        if name.startswith("blocks."):
            name = name.replace("blocks.", "layers.").replace("norm", "ln")
        elif name.startswith("fc_norm") and averaged:
            name = name.replace("fc_norm", "ln2")
        elif name.startswith("norm"):
            name = name.replace("norm", "ln1")
        head = name.startswith("head")
        made[f"head.layers.{name}" if head else f"backbone.{name}"] = value
    return made


@pytest.mark.parametrize("form", ["plain", "averaged", "distilled", "small"])
def test_mmpretrains_vit(tmp_path: Path, form: str) -> None:
    """MMPretrain has no release for this Python: its layout as facts, the weights are timm's."""
    more: State = {"averaged": {"global_pool": "avg", "init_values": 1.0}}.get(form, {})
    if form == "small":  # 8 heads, which no file says
        more = {"embed_dim": 768, "num_heads": 8, "mlp_ratio": 3, "depth": 1}
    kind = VisionTransformerDistilled if form == "distilled" else VisionTransformer
    model = drawn(kind(**{**SIZES, "num_classes": 5, **more}))
    state = mmpretrain(model.state_dict(), form == "averaged")
    torch.save({"meta": {"epoch": 1}, "state_dict": state}, tmp_path / "c.pth")
    found = require_the_same(tmp_path / "c.pth", model, Choices() if form == "small" else TWO_HEADS)
    assert found.vit.pool == ("avg" if form == "averaged" else "token")


@pytest.mark.parametrize("form", ["chunks", "registers", "teacher", "MAE"])
def test_metas_files(tmp_path: Path, form: str) -> None:
    """As timm's own filter takes them, where it does."""
    registers = {"reg_tokens": 4, "no_embed_class": True} if form == "registers" else {}
    model = drawn(VisionTransformer(**SIZES, num_classes=5, init_values=1e-5, **registers))
    state = {**copy.deepcopy(model.state_dict()), "mask_token": torch.zeros(1, 32)}
    top: State = state
    if form == "registers":
        position = torch.ones(1, 1, 32)
        state["register_tokens"] = state.pop("reg_token")
        state["pos_embed"] = torch.cat([position, state["pos_embed"]], 1)
        model.load_state_dict(checkpoint_filter_fn(copy.deepcopy(state), model))
    elif form == "chunks":
        top = {k.replace("blocks.1.", "blocks.3.1.").replace("blocks.0.", "blocks.0.0."): v
               for k, v in state.items()}  # fmt: skip
    elif form == "teacher":
        top = {"teacher": {f"module.backbone.{k}": v for k, v in state.items()}}
        heads = {f"module.backbone.{k}": v + 1 for k, v in state.items()}
        torch.save({**top, "student": heads}, tmp_path / "c.pth")
        with pytest.raises(
            InputError, match=r"'student' and 'teacher'; state which: --use-ema for"
        ):
            load_checkpoint(tmp_path / "c.pth", TWO_HEADS, dense=True)
    else:
        decoder = {"decoder_embed.weight": torch.zeros(8, 32), "decoder_pos_embed": torch.zeros(9)}
        top = {"model": {**state, **decoder}}
    torch.save(top, tmp_path / "c.pth")
    found = require_the_same(tmp_path / "c.pth", model)
    if form == "MAE":
        assert "left out: decoder_embed.weight and 1 more, a decoder, which only" in " ".join(
            found.found
        )


def headless(prefix: str) -> tuple[State, Any]:
    """A model's state_dict without its classifier, under a prefix, and the model."""
    model = drawn(VisionTransformer(**SIZES, num_classes=4))
    state = model.state_dict()
    return {prefix + k: v for k, v in state.items() if not k.startswith("head.")}, model


@pytest.mark.parametrize(
    ("prefix", "layer", "stated"),
    [
        ("backbone.", "classifier", None),
        ("model.backbone.", "model.fc", None),
        ("", "linear_head", None),
        ("backbone.", "odd.name", "odd.name"),
    ],
)
def test_a_classifier_under_another_name(
    tmp_path: Path, prefix: str, layer: str, stated: str | None
) -> None:
    state, model = headless(prefix)
    head = {
        f"{layer}.weight": model.head.weight.detach(),
        f"{layer}.bias": model.head.bias.detach(),
    }
    torch.save(state | head, tmp_path / "c.pth")
    found = require_the_same(tmp_path / "c.pth", model, Choices(num_heads=2, head_name=stated))
    assert f"its classifier is {layer}" in found.found
    assert any("(--head-name)" in note for note in found.notes) == (stated is None)


def test_a_classifier_that_leaves_something_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state, _ = headless("backbone.")
    two = {"classifier.weight": torch.ones(4, 32), "fc.weight": torch.ones(4, 32)}
    four = {"linear_head.weight": torch.ones(4, 160)}
    layers = {"classifier.0.weight": torch.ones(9, 32), "classifier.2.weight": torch.ones(4, 9)}
    normed = {"classifier.0.weight": torch.ones(32), "classifier.1.weight": torch.ones(4, 32)}
    own = {"backbone.head.weight": torch.ones(5, 32), "classifier.weight": torch.ones(4, 5)}
    for more, stated, message in (
        (
            two,
            (),
            "classifier and fc may be its classifier; state which: --head-name classifier|fc",
        ),
        (two, ("--head-name", "head"), "--head-name head: it holds no head.weight; classifier, fc"),
        (layers, (), "classifier.0.weight [9, 32] is of a classifier of several layers, expected"),
        (layers, ("--head-name", "classifier.0"), "classifier.0 is one of several layers (class"),
        (normed, ("--head-name", "classifier.1"), "classifier.1 is one of several layers (class"),
        (own, (), "backbone.head and classifier may be its classifier; state which: --head-name h"),
        (four, (), "linear_head.weight [4, 160] takes other numbers than the 32 that the model"),
    ):
        torch.save(state | more, "c.pth")
        told = ltmp("export", "c.pth", "--num-heads", "2", *stated)
        assert told.exit_code == 2
        assert message in told.stderr
    features = load_checkpoint("c.pth", Choices(num_heads=2, head_name="none"), dense=True)
    assert features.vit.classes == 0


def test_of_two_classifiers_the_stated_one(tmp_path: Path) -> None:
    """One in the model that is wrapped, one beside it; other tasks' beside it are left out."""
    state, _ = headless("backbone.")
    own = {"backbone.head.weight": torch.ones(5, 32), "backbone.head.bias": torch.ones(5)}
    tasks = {"heads.a.weight": torch.ones(3, 32), "heads.b.weight": torch.ones(2, 32)}
    torch.save(state | own | {"classifier.weight": torch.ones(4, 32)} | tasks, tmp_path / "c.pth")
    for stated, classes in (("head", 5), ("classifier", 4), ("heads.b", 2), ("none", 0)):
        choices = Choices(num_heads=2, head_name=stated)
        assert load_checkpoint(tmp_path / "c.pth", choices, dense=True).vit.classes == classes


def test_a_layer_that_no_name_calls_a_classifier_is_told_of(tmp_path: Path) -> None:
    state, _ = headless("backbone.")
    torch.save(state | {"to_labels.weight": torch.ones(4, 32)}, tmp_path / "c.pth")
    found = load_checkpoint(tmp_path / "c.pth", Choices(num_heads=2), dense=True)
    assert found.vit.classes == 0
    assert "classifier none (--head-name)" in found.notes
    assert "to_labels may be its classifier: --head-name" in found.found


def written(name: str, path: Path, config: State | None = None) -> Path:
    """A recorded model in a file of any name, a configuration beside it."""
    recorded = next(row for row in ROWS if row.fixture == name).recorded()
    weights = {k: torch.from_numpy(v) for k, v in numbers(recorded["shapes"]).items()}
    save_file(weights, path / "c.safetensors")
    if config is not None:
        (path / "config.json").write_text(json.dumps({**recorded["config"], **config}))
    return path / "c.safetensors"


def test_what_no_file_says_is_asked_for(tmp_path: Path) -> None:
    for name, question in (
        ("ViTForImageClassification", "nothing tells the number of heads (width 32)"),
        ("CLIPModel", "(width 32) and the activation (CLIP's are gelu or quick_gelu); state"),
        ("open_clip_own", "(width 32) and the activation (CLIP's are gelu or quick_gelu); state"),
    ):
        with pytest.raises(InputError) as told:
            load_checkpoint(written(name, tmp_path), Choices(), dense=True)
        assert question in str(told.value)


def test_a_configuration_beside_a_file_of_any_name(tmp_path: Path) -> None:
    """It is used where it is of such a model, and of this size."""
    name = "ViTForImageClassification"
    found = load_checkpoint(written(name, tmp_path, {}), dense=True)
    assert found.answers["num_heads"].where == "config.json: num_attention_heads"
    assert found.vit.norm_eps == 1e-12
    assert found.label_names == ("cat", "dog", "bird")
    with pytest.raises(InputError, match="says hidden_size 768, its weights have 32; put"):
        load_checkpoint(written(name, tmp_path, {"hidden_size": 768}), dense=True)
    with pytest.raises(InputError, match="nothing tells the number of heads"):
        load_checkpoint(written(name, tmp_path, {"model_type": "bert"}), dense=True)


def test_another_model_of_transformers_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = {"swin.embeddings.patch_embeddings.projection.weight": torch.ones(4, 3, 4, 4)}
    yolos = {"vit.embeddings.detection_tokens": torch.ones(1, 9, 32)}
    for content, config, message in (
        (
            odd,
            {"architectures": ["SwinModel"], "model_type": "swin"},
            "this is Hugging Face's SwinM",
        ),
        (
            yolos,
            {},
            "looks like Hugging Face's ViT, with what is not supported: vit.embeddings.det",
        ),
    ):
        file = written("ViTForImageClassification", tmp_path, config)
        weights = {**timm.models.load_state_dict(str(file)), **content}
        save_file(content if config else weights, "model.safetensors")
        told = (
            ltmp("inspect", "model.safetensors") if config else ltmp("export", "model.safetensors")
        )
        assert told.exit_code == 2
        assert message in told.stderr


@pytest.mark.parametrize("row", ROWS[5:9:3], ids=lambda row: row.fixture)
def test_damaged_files_are_refused_in_one_line(row: Row, tmp_path: Path) -> None:
    """Each kind of tensor missing, without dimensions, and with one more."""
    recorded = row.recorded()
    shapes: State = dict(recorded["shapes"])
    file = tmp_path / "model.safetensors"
    (tmp_path / "config.json").write_text(json.dumps(recorded["config"]))
    kinds = {re.sub(r"\d+", "N", key): key for key in shapes if "text" not in key}
    for key in kinds.values():
        for shape in (None, [], [*shapes[key], 1]):
            other = {k: v for k, v in {**shapes, key: shape}.items() if v is not None}
            save_file({k: torch.from_numpy(v) for k, v in numbers(other).items()}, file)
            refused(file)


def refused(file: Path) -> None:
    """Ask whether a file can be used, which may be answered in one line."""
    try:
        require_takeable(file, dense=True)
    except InputError as err:
        told = str(err)
    else:
        told = ""
    assert len(told.splitlines()) < 2
