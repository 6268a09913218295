"""Families, precisions and training on ViTs whose attention knows places."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ltmp_export import export, families
from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.model_file.model import read_exported, to_onnx
from ltmp_export.plan import work
from ltmp_export.plan.plan import dense_plan
from ltmp_export.precision.formats import FP16, INT8, Precision
from ltmp_export.reference import Reference
from ltmp_export.statements.choices import Choices
from ltmp_export.training.forms import ALIGNED
from ltmp_export.training.model import MaskedVit
from ltmp_export.training.static_model import StaticVit
from tests.makers import counted_macs, positioned
from tests.makers.commands import ltmp, refused, succeeded
from tests.makers.positioned import BEIT, CLIP, DINO, MIXED

EVIT = {"base_keep_rate": 0.6, "drop_loc": (0, 1), "fuse_token": True}
LEARNED: dict[str, Any] = {"merge": [0.2, 0.3, 0.3], "prune": [0.02, 0.05, 0.03]}
# Model, what its file holds, what is stated, and how it is exported.
CASES: dict[str, tuple[str, dict[str, Any], Choices, dict[str, Any]]] = {
    "m": (MIXED, {}, Choices(family="m", rate="3", metric_position="rotated"), {"opset": 16}),
    "pm": (CLIP, {}, Choices(family="pm", rate="4"), {"batch_size": 1, "opset": 20}),
    "evit": (MIXED, EVIT, Choices(family="evit"), {}),
    "evit at one": (BEIT, EVIT, Choices(family="evit"), {}),
    "mergence": (
        MIXED,
        {},
        Choices(family="multiscale_mergence", keep_rate=0.6, merge_at=(0, 1)),
        {},
    ),
    "budget": (CLIP, LEARNED, Choices(), {"mode": "static", "keep_tokens": "9,7,6"}),
    "budget at one": (BEIT, LEARNED, Choices(), {"mode": "static", "keep_tokens": "9,7,6"}),
    "registers": (positioned.DINO, LEARNED, Choices(), {"batch_size": 1}),
    "registers, gated": (positioned.PLUS, {}, Choices(family="m", rate="3"), {}),
    "registers alone": (positioned.GAP, LEARNED, Choices(), {}),
    "fewer keys": (positioned.SAPIENS, {}, Choices(family="mp", rate="3"), {}),
    "masks": (
        DINO,
        {},
        Choices(family="ltm_transformer", restore=True, compression_ratio=0.4),
        {"opset": 16},
    ),
    "masks at one": (
        BEIT,
        {},
        Choices(family="ltm_transformer", restore=True, hard=True, compression_ratio=0.4),
        {"batch_size": 1},
    ),
    "masks that stay": (
        positioned.POST,
        {},
        Choices(family="ltm_transformer", compression_ratio=0.4),
        {},
    ),
    "int8": (
        CLIP,
        LEARNED,
        Choices(metric_position="rotated"),
        {"precision": Precision(INT8)},
    ),
    "int8 of turns": (
        MIXED,
        LEARNED,
        Choices(metric_position="rotated"),
        {"precision": Precision(INT8)},
    ),
    "fp16": (BEIT, LEARNED, Choices(), {"precision": Precision(FP16)}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_file_is_the_reference(tmp_path: Path, case: str) -> None:
    name, held, choices, options = CASES[case]
    if case.startswith("evit") or case == "mergence":  # of models that classify the class token
        held = held | {"gp": "token"}
    source = positioned.save(tmp_path / "c.pth", positioned.model(name), name, **held)
    report = export(source, tmp_path / "c.onnx", choices=choices, **options)
    assert report.check is not None
    assert report.check.passed(strict=True)
    read = read_exported(tmp_path / "c.onnx")
    usual = {BEIT: "destination", positioned.POST: ""}.get(name, "mean")
    wanted = choices.merged_position or usual
    assert read.plan.merged_position == wanted
    assert (report.macs_share or 0.9) < 0.95


def test_multiply_accumulates_are_those_of_the_graph(tmp_path: Path) -> None:
    """A turn is none; queries, keys and values apart, and fewer heads of keys."""
    for name in (CLIP, positioned.SAPIENS, BEIT):
        path = positioned.save(tmp_path / "c.pth", positioned.model(name), name)
        found = load_checkpoint(path, dense=True)
        model = to_onnx(found, opset=17, batch_size=1)
        counted = counted_macs.executed(model, positioned.images(1).numpy())
        mean = found.vit.patches * positioned.WIDTH if found.vit.pool == "avg" else 0
        assert counted - mean == work.dense_macs(found.geometry)  # a mean is none, either


def test_training_decides_as_deployed(tmp_path: Path) -> None:
    """Under a mask, and in a static plan, with places that have no gradient."""
    images = positioned.images()
    path = positioned.save(tmp_path / "c.pth", positioned.model(CLIP), CLIP, **LEARNED)
    found = load_checkpoint(path, Choices(merged_position="destination"))
    path = positioned.save(tmp_path / "d.pth", positioned.model(DINO), DINO, **LEARNED)
    registers = load_checkpoint(path)
    for own, merged in ((found, "destination"), (registers, "mean")):
        plan = replace(own.plan, merged_position=merged)
        masked = MaskedVit(
            own.model, families.load("ltmp"), plan.thresholds(), ALIGNED, plan=plan
        ).eval()  # fmt: skip
        output = masked(images)
        for number, image in enumerate(images):
            wanted = Reference(own.model, plan).run(image)
            assert tuple(output.counts[number].tolist()) == wanted.counts
            assert (output.logits[number] - wanted.logits).abs().max() < 1e-4
        output.logits.sum().backward()
        assert any(value.grad is not None for value in masked.thresholds.values())
    path = positioned.save(tmp_path / "b.pth", positioned.model(MIXED), MIXED)
    stated = Choices(family="multiscale_mergence", keep_rate=0.6, merge_at=(0, 1))
    masks = Choices(family="ltm_transformer", restore=True, compression_ratio=0.4)
    for choices in (stated, masks):
        made = load_checkpoint(path, choices)
        assert ("merged_position" in made.assumed) == (choices is stated)
        logits = StaticVit(made.model, made.plan).eval()(images).logits
        for number, image in enumerate(images):
            wanted = Reference(made.model, made.plan).run(image)
            assert (logits[number] - wanted.logits).abs().max() < 1e-4


def test_what_is_stated_is_told_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    positioned.save(tmp_path / "c.pth", positioned.model(CLIP), CLIP, **LEARNED)
    arguments = ("--merged-position", "destination", "--opset", "17")
    succeeded(ltmp("export", "c.pth", "-o", "c.onnx", *arguments))
    succeeded(ltmp("check", "c.onnx", "c.pth", "--samples", "2"))
    told = succeeded(ltmp("inspect", "c.onnx"))
    assert "rotary positions" in told
    assert "destination" in told
    positioned.save(
        tmp_path / "own.pth", positioned.model(CLIP), CLIP, merged_position="destination", **LEARNED
    )
    assert load_checkpoint(tmp_path / "own.pth").plan.merged_position == "destination"
    positioned.save(tmp_path / "b.pth", positioned.model(BEIT), BEIT, **LEARNED)
    wrong = ltmp("export", "b.pth", "--merged-position", "mean")
    refused(wrong, "relative position bias")
    with pytest.raises(InputError, match="a mixture|does not take"):
        load_checkpoint(tmp_path / "c.pth", Choices(family="patchmerger"))
    with pytest.raises(InputError, match="state --restore: .* a mixture of patches"):
        load_checkpoint(tmp_path / "own.pth", Choices(family="ltm_transformer"))
    nameless = torch.load(tmp_path / "c.pth", weights_only=False) | {"arch": "ltmp"}
    torch.save(nameless, tmp_path / "n.pth")
    with pytest.raises(InputError, match="state it with --model"):
        load_checkpoint(tmp_path / "n.pth", Choices(family="ltmp"))


def test_a_dense_plan_says_nothing_of_places(tmp_path: Path) -> None:
    path = positioned.save(tmp_path / "c.pth", positioned.model(CLIP), CLIP)
    found = load_checkpoint(path, dense=True)
    assert not found.notes or "patches" not in " ".join(found.notes)
    assert "merged_position" not in dense_plan(3).to_json()
