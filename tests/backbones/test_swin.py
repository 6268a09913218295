"""Swin Transformers: geometry, eager and graph against timm and against one another."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import onnx
import pytest
import torch
from timm.models.swin_transformer import SwinTransformer, get_relative_position_index

from ltmp_export.backbones.swin import attention, describe, windows
from ltmp_export.backbones.swin.geometry import Block, Swin
from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity.compare import compare
from ltmp_export.plan.plan import dense_plan
from ltmp_export.plan.work import dense_macs
from ltmp_export.precision.formats import DYNAMIC, FP16, INT8, Precision
from ltmp_export.reference import Reference, verify_against_timm
from ltmp_export.runtimes import opsets
from ltmp_export.runtimes.session import Session
from tests.makers import counted_macs, swins

CLOSE = 2e-4  # of the largest output: timm's own forward
SIZES = (1, 3)
MODELS: dict[str, dict[str, Any]] = {
    "windows of two sizes": {},
    "one window": {"img_size": (8, 8), "window_size": ((4, 4), (2, 2))},
    "one row of windows": {"img_size": (8, 16), "patch_size": (2, 2), "window_size": 4,
                           "depths": (2,), "num_heads": (2,)},
    "other sides": {"patch_size": (4, 2), "img_size": (32, 24), "mlp_ratio": 2.5, "in_chans": 1,
                    "qkv_bias": False},
}  # fmt: skip


def geometry(made: SwinTransformer) -> Swin:
    return describe.describe(made, "small")


@pytest.mark.parametrize("name", MODELS)
def test_nothing_merged_is_timms_forward(name: str) -> None:
    made = swins.model(**MODELS[name])
    own = geometry(made)
    verify_against_timm(made, own)
    pixels = torch.from_numpy(swins.images(own).pixels)
    with torch.inference_mode():
        wanted = made(pixels)
    reference = Reference(made, dense_plan(own.depth))
    found = torch.stack([reference.run(image).logits for image in pixels])
    assert float((found - wanted).abs().max()) < CLOSE * float(wanted.abs().max())


def verdict(model: onnx.ModelProto, checkpoint: Checkpoint, **options: Any) -> str:
    """What `check` says of a file, all blocks compared, alone and in batches."""
    images = swins.images(checkpoint.geometry)
    sizes = options.pop("batch_sizes", SIZES)
    return compare(model, checkpoint, images, batch_sizes=sizes, **options).verdict


@pytest.mark.parametrize("name", MODELS)
def test_dense_files_are_the_model(name: str) -> None:
    checkpoint = swins.checkpoint(swins.model(**MODELS[name]))
    assert verdict(to_onnx(checkpoint, opset=17), checkpoint) == "equal"


@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
@pytest.mark.parametrize("opset", [16, 17, opsets.newest_opset()])
def test_files_that_merge_are_the_model(hard: bool, opset: int) -> None:
    checkpoint = swins.merging(swins.small(), hard=hard)
    model = to_onnx(checkpoint, opset=opset, token_counts=True)
    assert verdict(model, checkpoint) == "equal"
    single = to_onnx(checkpoint, opset=opset, batch_size=1)
    assert verdict(single, checkpoint, batch_sizes=(1,)) == "equal"


def test_one_mask_for_windows_of_one_size() -> None:
    checkpoint = swins.merging(swins.small(alike=True), hard=False)
    assert [key for key in checkpoint.plan.parameters if "mask" in key] == ["ltm.mask0"]
    assert verdict(to_onnx(checkpoint, opset=17), checkpoint) == "equal"


def test_masks_that_keep_all_tokens_are_dense() -> None:
    """P = N, each token its own target, no step: timm's model, restored or not."""
    made = swins.small()
    own = geometry(made)
    plan = swins.started(own, hard=False, ratio=1.0)
    masks = [mask for name, mask in plan.parameters.items() if name.endswith("mask0")]
    assert all(torch.equal(mask, torch.eye(len(mask))) for mask in masks)
    images = swins.images(own).pixels
    with torch.inference_mode():
        wanted = made(torch.from_numpy(images))
    checkpoint = swins.checkpoint(made, plan)
    eager = [Reference(made, plan).run(torch.from_numpy(image)).logits for image in images]
    (filed,) = Session(to_onnx(checkpoint, opset=17)).run(images)
    for found in (torch.stack(eager), torch.from_numpy(filed)):
        assert float((found - wanted).abs().max()) < CLOSE * float(wanted.abs().max())


@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
def test_windows_are_merged_by_themselves(hard: bool) -> None:
    """What changes in one window of a block changes no other behind the block's MLP."""
    made = swins.small()
    checkpoint = swins.merging(made, hard=hard)
    plan = replace(checkpoint.plan, blocks=((), checkpoint.plan.blocks[1], (), (), ()))
    block = list(geometry(made).blocks())[1]
    pixels = torch.from_numpy(swins.images(geometry(made)).pixels[0])
    other = pixels.clone()
    other[:, :2, :2] += 1.0  # the patch in the corner, which is rolled to the last window
    taken = [Reference(made, plan).run(image).tokens for image in (pixels, other)]
    first = (taken[0][0] - taken[1][0]).abs().amax(1) > 0  # behind the unshifted block
    changed = (taken[0][1] - taken[1][1]).abs().amax(1) > 0
    reached = {place // block.area for place in torch.tensor(windows.back(block))[first].tolist()}
    expected = [place // block.area in reached for place in windows.back(block)]
    assert len(reached) < block.sets
    assert changed.tolist() == expected


@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
def test_lower_precision_is_bounded(hard: bool) -> None:
    checkpoint = swins.merging(swins.small(), hard=hard)
    images = swins.images(checkpoint.geometry)
    asked = [Precision(FP16), Precision(INT8, scales=DYNAMIC, protected=False)]
    if hard:
        asked = [Precision(FP16, io=FP16), Precision(INT8)]
    for precision in asked:
        source = checkpoint
        if precision.kind == INT8:
            source, precision = quantise.prepare(checkpoint, images, precision)
            assert len(precision.layers) == 4 * 5 + 1 + 1
            assert [p for p, given in precision.layers.items() if given.terms > 1] == (
                ["head.fc"] if precision.protected else []
            )
        model = to_onnx(source, opset=17, precision=precision)
        assert verdict(model, checkpoint, precision=precision) == "bounded"


def test_products_are_those_of_the_graph() -> None:
    for alike in (False, True):
        made = swins.small(alike)
        for plan in (dense_plan(geometry(made).depth), swins.merging(made, hard=False).plan):
            model = to_onnx(swins.checkpoint(made, plan), opset=17, batch_size=1)
            assert counted_macs.of(model) == geometry(made).macs(plan)


def test_swin_t_has_the_products_of_its_paper() -> None:
    own = Swin(
        "t", (224, 224), (4, 4), 3, 1000, (2, 2, 6, 2), (96, 192, 384, 768),
        (384, 768, 1536, 3072), (3, 6, 12, 24), ((7, 7),) * 4, 1e-5, "gelu",
    )  # fmt: skip
    assert own.tokens == 3136
    assert dense_macs(own) / 1e9 == pytest.approx(4.5, abs=0.02)
    plan = swins.started(own, hard=True, ratio=0.75)
    assert [rows.kept for rows in own.rows(plan)][:3] == [64 * 36, 64 * 36, 16 * 36]
    stages = zip((2, 2, 6, 2), (96, 192, 384, 768), (3136, 784, 196, 49), strict=True)
    saved = sum(n * rows * (8 * c * c * 13 / 49 - 3 * 36 * c) for n, c, rows in stages)
    assert own.macs(plan) == pytest.approx(dense_macs(own) - saved, rel=1e-9)
    assert own.macs(plan) / dense_macs(own) == pytest.approx(0.8705, abs=1e-4)


def test_places_begin_where_windows_are_cut_anew() -> None:
    places = geometry(swins.small()).places()
    assert [(one.path, one.sets, one.grid, one.width, one.starts) for one in places] == [
        ("layers.0.blocks.0", 6, (4, 4), 16, True), ("layers.0.blocks.1", 6, (4, 4), 16, True),
        ("layers.1.blocks.0", 6, (2, 2), 32, True), ("layers.1.blocks.1", 6, (2, 2), 32, True),
        ("layers.1.blocks.2", 6, (2, 2), 32, False),
    ]  # fmt: skip


def test_tables_of_places_are_timms() -> None:
    made = swins.small()
    block: Any
    for own, block in zip(
        geometry(made).blocks(), [b for stage in made.layers for b in stage.blocks], strict=True
    ):
        assert own.window == tuple(block.window_size)
        assert own.shift == tuple(block.shift_size)
        index = get_relative_position_index(*own.window)
        assert windows.relations(own) == index.flatten().tolist()
        regions = torch.tensor(windows.regions(own)).reshape(own.sets, own.area)
        apart = regions[:, None] != regions[:, :, None]
        wanted = torch.zeros_like(apart) if block.attn_mask is None else block.attn_mask != 0
        assert torch.equal(apart, wanted)


def test_geometry_is_read_back() -> None:
    own = geometry(swins.small())
    assert Swin.from_json(json.loads(json.dumps(own.to_json()))) == own


@pytest.mark.parametrize(
    "damage",
    [{"depths": [2]}, {"windows": [[5, 4], [2, 2]]}, {"heads": [3, 2]}, {"image_size": [16, 20]},
     {"classes": True}, {"widths": []}, {"patch_size": [2]}, {"depths": [2000, 3]}],
    ids=str,
)  # fmt: skip
def test_nonsense_is_no_geometry(damage: dict[str, Any]) -> None:
    values = json.loads(json.dumps(geometry(swins.small()).to_json())) | damage
    with pytest.raises((LookupError, TypeError, ValueError)):
        Swin.from_json(values)


def test_plans_of_other_windows_are_impossible() -> None:
    own, plan = geometry(swins.small()), swins.merging(swins.small(), hard=False).plan
    own.require_possible(plan)
    step: Any = plan.blocks[0][0]
    for wrong in (replace(step, sets=3), replace(step, restore=False), replace(step, of=15)):
        with pytest.raises(ValueError, match="block 0 cannot take"):
            own.require_possible(replace(plan, blocks=((wrong,), *plan.blocks[1:])))


Wrong = Callable[[Block], Sequence[int]]
WRONG: dict[str, tuple[str, Wrong]] = {
    "not rolled": ("order", lambda b: windows.order(b._replace(shift=(0, 0)))),
    "rolled the other way": (
        "order", lambda b: windows.order(b._replace(shift=(-b.shift[0], -b.shift[1]))),
    ),
    "columns before rows": (
        "order", lambda b: _turned(windows.order(b._replace(shift=b.shift)), b),
    ),
    "all attend": ("regions", lambda b: [0] * b.tokens),
    "biases of the other token": (
        "relations", lambda b: list(reversed(windows.relations(b))),
    ),
}  # fmt: skip


def _turned(order: Sequence[int], block: Block) -> list[int]:
    """Tokens within each window column by column."""
    by_window = torch.tensor(order).reshape(block.sets, *block.window)
    found: list[int] = by_window.mT.flatten().tolist()
    return found


@pytest.mark.parametrize("name", WRONG)
def test_wrong_graphs_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cuts, or attends, otherwise than the model in its shifted blocks."""
    checkpoint = swins.merging(swins.small(), hard=False)
    what, wrong = WRONG[name]
    right: Callable[[Block], Sequence[int]] = getattr(windows, what)
    broken = _Windows(what, lambda b: wrong(b) if any(b.shift) else right(b))
    monkeypatch.setattr(attention, "windows", broken)
    model = to_onnx(checkpoint, opset=17)
    monkeypatch.undo()
    report = compare(model, checkpoint, swins.images(checkpoint.geometry), batch_sizes=(1,))
    assert report.verdict == "fail"
    errors = {row.block: row.token_ratio for row in report.blocks}
    first = 0 if what == "relations" else 1  # whose table both kinds of blocks share
    assert min(block for block, error in errors.items() if error > 1) == first


class _Windows:
    """The module of that name with one function changed, and `back` as follows from `order`."""

    def __init__(self, what: str, wrong: Wrong) -> None:
        self.order, self.regions = windows.order, windows.regions
        self.relations = windows.relations
        setattr(self, what, wrong)

    def back(self, block: Block) -> list[int]:
        places = [0] * block.tokens
        for place, token in enumerate(self.order(block)):
            places[token] = place
        return places


@pytest.mark.parametrize(
    ("kwargs", "told"),
    [
        ({"img_size": (20, 24)}, "no whole number of windows of 4x4 in stage 0"),
        ({"img_size": (24, 28), "window_size": ((2, 2), (3, 3))}, "of 3x3 in stage 1"),
        ({"always_partition": True}, "always_partition"),
        ({"strict_img_size": False}, "dynamic_img_size"),
        ({"global_pool": "max"}, "global_pool='max'"),
        ({"head_dim": 8}, "heads of another width"),
        ({"num_classes": 0}, "a model without classifier"),
    ],
    ids=str,
)
def test_what_is_not_covered_is_refused_by_name(kwargs: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        geometry(SwinTransformer(**swins.DEFAULTS | kwargs))
