"""`ltmp models` and `ltmp inspect timm:NAME`: what timm offers, told without its weights."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import huggingface_hub
import pytest
import timm
from rich.console import Console
from torch import nn

from ltmp_export.reports.models import models_summary
from ltmp_export.statements import timm_names
from tests.makers.commands import ltmp, refused, succeeded


@pytest.fixture(autouse=True)
def _nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(*arguments: Any, **options: Any) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetched)


def inspected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(succeeded(ltmp("inspect", f"timm:{name}", "--json")))
    assert found["schema_version"] == 1
    assert found["kind"] == "timm model"
    return found


def test_a_model_that_is_taken() -> None:
    """The tag tells the normalisation: MAE's own is ImageNet's, augreg's is a half."""
    told = inspected("vit_tiny_patch16_224.augreg_in21k")
    assert told["taken"]
    assert told["missing"] == []
    assert (told["vit"]["prefix"], told["vit"]["pool"], told["vit"]["classes"]) == (
        1,
        "token",
        21843,
    )
    assert told["outputs"] == ["logits"]
    assert told["preprocessing"]["mean"] == [0.5, 0.5, 0.5]
    assert told["weights"] == "timm/vit_tiny_patch16_224.augreg_in21k"
    shown = succeeded(ltmp("inspect", "timm:vit_tiny_patch16_224.augreg_in21k"))
    assert "12 blocks, width 192, 3 heads, MLP 768, gelu, pool token" in shown
    assert inspected("swin_tiny_patch4_window7_224")["backbone"]["kind"] == "swin"


def test_everything_that_is_missing_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built = timm.create_model("vit_tiny_patch16_224", depth=1)
    built.pre_logits, built.blocks[0].attn.proj_l = nn.Linear(2, 2), nn.Linear(2, 2)
    monkeypatch.setattr(timm_names, "create", lambda name: built)
    told = inspected("vit_tiny_patch16_224")
    assert not told["taken"]
    assert "vit" not in told
    assert told["missing"] == [
        "a layer between pooling and classifier (pre_logits.weight)",
        "talking heads (blocks.0.attn.proj_l.weight)",
    ]
    shown = succeeded(ltmp("inspect", "timm:vit_tiny_patch16_224"))
    assert all(line in shown for line in told["missing"])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnet18", "timm's class ResNet: it looks like a ResNet"),
        ("samvit_base_patch16_224", "timm's class VisionTransformerSAM: it attends in windows"),
        ("naflexvit_base_patch16_siglip", "timm's class NaFlexVit: it takes patches of images"),
        ("vit_relpos_medium_patch16_cls_224", "class VisionTransformerRelPos: only a bias of"),
        ("vit_srelpos_small_patch16_224", "class VisionTransformerRelPos: only a bias of"),
    ],
)
def test_what_is_no_plain_vit_is_one_line(name: str, says: str) -> None:
    (line,) = inspected(name)["missing"]
    assert says in line
    if name != "samvit_base_patch16_224":  # which has no pretrained weights
        refused(ltmp("export", f"timm:{name}", "--family", "m", "--r", "4"), "it looks like ")


def test_unknown_names() -> None:
    refused(ltmp("inspect", "timm:deit_tinny_patch16_224"), "no model 'deit_tinny.*did you mean")


def test_models_of_a_pattern() -> None:
    """Sizes of one kind are one group, named by the smallest; tags are counted."""
    found = json.loads(succeeded(ltmp("models", "deit_*", "--json")))
    assert (found["schema_version"], found["kind"]) == (1, "models")
    distilled, plain = found["groups"]
    assert plain["name"] == "deit_tiny_patch16_224"
    assert distilled["names"] == [
        f"deit_{size}" for size in (
            "base_distilled_patch16_224", "base_distilled_patch16_384",
            "small_distilled_patch16_224", "tiny_distilled_patch16_224",
        )
    ]  # fmt: skip
    assert (len(distilled["tags"]), distilled["headless"], distilled["taken"]) == (4, 0, True)
    assert found["tags"] == found["tags_taken"] == 8
    assert "8 of 8 pretrained tags are taken (100.0%)" in succeeded(ltmp("models", "deit_*"))


def test_models_that_are_not_taken_say_why() -> None:
    shown = succeeded(ltmp("models", "samvit_base_patch16_224"))
    assert shown.splitlines()[1].startswith("no     samvit_base_patch16_224")
    assert "VisionTransformerSAM" in shown
    assert "0 of 0 pretrained tags are taken" in shown
    one = json.loads(succeeded(ltmp("models", "*.mae", "--json")))
    assert all(tag.endswith(".mae") for group in one["groups"] for tag in group["tags"])
    refused(ltmp("models", "vit_bse_patch16*"), "offers no model 'vit_bse_patch16\\*'")


def test_a_terminal_of_80_columns_shows_why() -> None:
    why = "timm's class VisionTransformerSAM: it attends in windows, with relative positions"
    name = "vit_base_patch16_clip_quickgelu_224"
    groups = [
        {"name": name, "network": "VisionTransformer", "taken": taken, "missing": missing,
         "names": [name] * 12, "tags": [name] * 70}
        for taken, missing in ((True, []), (False, [why]))
    ]  # fmt: skip
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(models_summary({"groups": groups, "tags": 2, "tags_taken": 1, "timm": "1"}))
    header, *lines = console.export_text().splitlines()
    headers = ["taken", "smallest of its group", "class, or why not", "names", "tags"]
    assert [word for word in re.split(r"\s{2,}", header) if word] == headers
    assert name in lines[0]
    cells = "".join(line[44:67].rstrip() for line in lines[1:-1])
    assert cells.replace(" ", "") == why.replace(" ", "")
