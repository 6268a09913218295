"""PatchMerger's checkpoints: where its layers stand, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ltmp_export import bench, check, export, inspect, load_checkpoint
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.plan.work import dense_macs, macs
from ltmp_export.statements.choices import Choices
from ltmp_export.steps.patch_merge.step import PatchMerge
from ltmp_export.timing.settings import Settings
from tests.conftest import cluster_layers, load_torch
from tests.makers.vit_pytorch import random_weights

Digits = Callable[[str], Checkpoint]
Change = Callable[[dict[str, Tensor]], Any]


def saved(folder: Path, *layers: dict[str, Tensor]) -> Path:
    content: dict[str, Tensor] = {}
    for layer in layers:
        content |= layer
    torch.save(content, folder / "p.pth")
    return folder / "p.pth"


def stated(*before: int, scale: str | None = None) -> Choices:
    return Choices(num_heads=2, merge_at=before or None, merge_scale=scale)


@pytest.mark.parametrize("before", [(0, 5), (2, 4), (5, 6)])
def test_places(digits_base: Path, tmp_path: Path, before: tuple[int, int]) -> None:
    """Before the first block and behind the last one, too."""
    path = saved(tmp_path, load_torch(digits_base), cluster_layers(128, 24, 9))
    checkpoint = load_checkpoint(path, stated(*before))
    assert tuple(checkpoint.plan.before) == before
    made = export(checkpoint, tmp_path / "m.onnx")
    assert made.check is not None
    assert made.check.verdict == "equal"
    tokens, expected = 65, []
    for block in range(6):
        if block in before:
            tokens = (25, 10)[before.index(block)]
        expected.append(tokens)
    assert made.tokens == tuple(expected)


@pytest.mark.parametrize(("scale", "expected"), [(None, 1.0), ("one", 1.0), ("sqrt", 128**-0.5)])
def test_scale_of_the_deit_dialect(
    digits_base: Path, tmp_path: Path, scale: str | None, expected: float
) -> None:
    path = saved(tmp_path, load_torch(digits_base), cluster_layers(128, 24))
    checkpoint = load_checkpoint(path, stated(3, scale=scale))
    (merge,) = checkpoint.plan.before.values()
    assert isinstance(merge, PatchMerge)
    assert (merge.tokens, merge.eps) == (24, 1e-5)
    assert merge.scale == pytest.approx(expected)
    assert (checkpoint.assumed.get("merge_scale") == "one") == (scale is None)


def test_defaults_of_vit_pytorch(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path, random_weights()), Choices(num_heads=2))
    depth, width = checkpoint.vit.depth, checkpoint.vit.width
    (block,) = checkpoint.plan.before
    assert block == depth // 2
    merge = checkpoint.plan.before[block]
    assert isinstance(merge, PatchMerge)
    assert merge.scale == pytest.approx(width**-0.5)
    told = " ".join(checkpoint.notes)
    assert f"PatchMerger before blocks {depth // 2} (--merge-at)" in told
    assert "PatchMerger's scores scaled by 1/√C (--merge-scale)" in told
    other = load_checkpoint(saved(tmp_path, random_weights()), stated(depth, scale="one"))
    assert {at: step.after(10, 0) for at, step in other.plan.before.items()} == {depth: 4}


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ((), "does not say where its 2 layers of PatchMerger stand.*--merge-at 3,6,9"),
        ((3,), "expected 2 rising numbers from 0 to 6, one for each layer"),
        ((3, 3), "expected 2 rising"),
        ((4, 3), "expected 2 rising"),
        ((3, 7), "expected 2 rising"),
        ((1, 2, 3), "expected 2 rising"),
    ],
)
def test_places_that_do_not_fit(
    digits_base: Path, tmp_path: Path, before: tuple[int, ...], message: str
) -> None:
    path = saved(tmp_path, load_torch(digits_base), cluster_layers(128, 24, 9))
    with pytest.raises(InputError, match=message):
        load_checkpoint(path, stated(*before))


DAMAGED: dict[str, tuple[Change, str]] = {
    "a gap": (
        lambda w: w.update({k.replace(".1.", ".3."): w.pop(k) for k in list(w) if ".1." in k}),
        r"holds the layers \[0, 3\] of patchmerger; expected 0, 1",
    ),
    "no queries": (
        lambda w: w.pop("cluster_layers.0.queries"),
        r"cluster_layers.0.queries is missing; expected \[tokens, 128\]",
    ),
    "no bias": (
        lambda w: w.pop("cluster_layers.1.norm.bias"),
        r"cluster_layers.1.norm.bias is missing; expected \[128\]",
    ),
    "queries of another width": (
        lambda w: w.update({"cluster_layers.0.queries": torch.ones(4, 64)}),
        r"queries is \[4, 64\]; expected \[tokens, 128\]",
    ),
    "queries in three dimensions": (
        lambda w: w.update({"cluster_layers.0.queries": torch.ones(1, 4, 128)}),
        r"queries is \[1, 4, 128\]; expected",
    ),
    "no tokens": (
        lambda w: w.update({"cluster_layers.0.queries": torch.ones(0, 128)}),
        r"queries is \[0, 128\]; expected",
    ),
}


@pytest.mark.parametrize(("change", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged(digits_base: Path, tmp_path: Path, change: Change, message: str) -> None:
    layers = cluster_layers(128, 24, 9)
    change(layers)
    with pytest.raises(InputError, match=message):
        load_checkpoint(saved(tmp_path, load_torch(digits_base), layers), stated(2, 4))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            Choices(family="ltmp"),
            "layers of patchmerger, which ltmp has none of.*--family patchmerger",
        ),
        (Choices(family="m", rate="8"), "holds layers of patchmerger, which m has none of"),
        (Choices(rate="8"), "--r and --reduction-target are for m, mp, p, pm; drop them"),
    ],
)
def test_other_families(digits_base: Path, tmp_path: Path, choices: Choices, message: str) -> None:
    path = saved(tmp_path, load_torch(digits_base), cluster_layers(128, 24))
    with pytest.raises(InputError, match=message):
        load_checkpoint(path, choices)


def test_multiply_accumulates(digits: Digits) -> None:
    """By hand: 65 tokens, 24 + 1 from block 2, 9 + 1 from block 4, scores and mixtures included."""
    checkpoint = digits("patchmerger")
    vit = checkpoint.vit
    by_block = {65: 0, 25: 0, 10: 0}
    for tokens in by_block:
        by_block[tokens] = 12 * tokens * 128**2 + 2 * tokens**2 * 128
    rest = dense_macs(vit) - 6 * by_block[65]
    mixing = 2 * 24 * 64 * 128 + 2 * 9 * 24 * 128
    counts = (65, 65, 25, 25, 10, 10)
    assert macs(vit, counts, checkpoint.plan) == rest + mixing + 2 * sum(by_block.values())


def test_the_other_commands(digits: Digits, tmp_path: Path) -> None:
    checkpoint, output = digits("patchmerger"), tmp_path / "m.onnx"
    made = export(checkpoint, output)
    assert check(output, checkpoint.path, samples=3).verdict == "equal"  # places as at the export
    assert inspect(output)["plan"]["patch_merges"]["2"]["tokens"] == 24
    timed = bench(output, samples=2, settings=Settings(iterations=1, warmup=1, roofline=True))
    assert timed.gmacs / timed.dense_gmacs == pytest.approx(made.macs_share)


def test_behind_the_last_block_it_changes_nothing(digits_base: Path, tmp_path: Path) -> None:
    path = saved(tmp_path, load_torch(digits_base), cluster_layers(128, 24))
    assert any("changes nothing" in w for w in load_checkpoint(path, stated(6)).warnings)
    assert load_checkpoint(path, stated(5)).warnings == ()


def test_a_scale_in_other_words(digits_base: Path, tmp_path: Path) -> None:
    path = saved(tmp_path, load_torch(digits_base), cluster_layers(128, 24))
    with pytest.raises(InputError, match="--merge-scale ONE: expected one or sqrt"):
        load_checkpoint(path, stated(3, scale="ONE"))


def test_its_places_are_compared(digits: Digits, tmp_path: Path) -> None:
    checkpoint, output = digits("patchmerger"), tmp_path / "m.onnx"
    export(checkpoint, output, check=False)
    found = check(output, checkpoint.path, samples=1, batch_sizes=[1], choices=stated(1, 4))
    assert found.verdict == "fail"
    assert found.reason == "the file mixes tokens before 2, 4, the checkpoint before 1, 4"
    found = check(output, checkpoint.path, samples=1, batch_sizes=[1], choices=stated(scale="sqrt"))
    assert found.reason == (
        "the file states another scale of the step before block 2 than the checkpoint"
    )


def test_margins_of_a_method_without_decisions(
    digits: Digits, tmp_path: Path, digit_images: Tensor
) -> None:
    np.savez(tmp_path / "i.npz", images=digit_images[:2].numpy())
    found = inspect(digits("patchmerger").path, stated(2, 4), images=tmp_path / "i.npz")
    assert found["margins"]["steps"] == []


def test_calibrate_says_what_it_is(digits: Digits) -> None:
    from ltmp_export import calibrate

    path = digits("patchmerger").path
    with pytest.raises(InputError, match="layers of patchmerger: there are no thresholds to make"):
        calibrate(path, path.parent, [0.5], "c.pth", choices=Choices(num_heads=2))


def test_it_has_no_thresholds_to_learn(digits: Digits) -> None:
    from ltmp_export import calibrate

    path = digits("patchmerger").path
    with pytest.raises(InputError, match="is of family patchmerger, which has no thresholds to"):
        calibrate(path, path.parent, [0.5], "c.pth", choices=stated(2, 4))
