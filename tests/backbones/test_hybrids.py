"""MobileViT and EfficientViT: geometry, eager and graph against timm and against one another."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from ltmp_export.backbones.hybrid.cells import shaped
from ltmp_export.backbones.hybrid.eager import Journey
from ltmp_export.plan.cells import cells
from ltmp_export.plan.plan import Plan, dense_plan
from ltmp_export.runtimes import opsets
from ltmp_export.runtimes.recording import TappedSession
from ltmp_export.steps.merge_mask import stages
from tests.makers import counted_macs, hybrids
from tests.makers.hybrids import EFFICIENTVIT, MOBILEVIT, RATIO, Made

CLOSE = 2e-4  # of the largest output: timm's own forward
BATCH = 3


@pytest.fixture(scope="module", params=hybrids.ALL, ids=str)
def net(request: pytest.FixtureRequest) -> hybrids.Net:
    return hybrids.net(request.param)


@pytest.mark.parametrize("made", hybrids.ALL, ids=str)
def test_geometry_is_read_back(made: Made) -> None:
    geometry = hybrids.net(made).geometry
    assert type(geometry).from_json(json.loads(json.dumps(geometry.to_json()))) == geometry


@pytest.mark.parametrize("made", hybrids.ALL, ids=str)
@pytest.mark.parametrize(
    "damage",
    [
        {"classes": 0},
        {"classes": True},
        {"norm_eps": "1e-5"},
        {"image_size": [64]},
        {"pieces": []},
        {"head": [0, 1]},
    ],
    ids=str,
)
def test_nonsense_is_no_geometry(made: Made, damage: dict[str, Any]) -> None:
    geometry = hybrids.net(made).geometry
    values = json.loads(json.dumps(geometry.to_json())) | damage
    with pytest.raises((LookupError, TypeError, ValueError)):
        type(geometry).from_json(values)


def test_convolutions_that_do_not_fit_are_no_geometry(net: hybrids.Net) -> None:
    values = json.loads(json.dumps(net.geometry.to_json()))
    values["pieces"][0]["convs"][0][3] = 2  # an even kernel
    with pytest.raises(ValueError, match="a convolution"):
        type(net.geometry).from_json(values)


def test_places_and_rows(net: hybrids.Net) -> None:
    geometry = net.geometry
    sets = {MOBILEVIT: 4, EFFICIENTVIT: 1}[net.made]
    places = geometry.places()
    assert [(one.sets, one.grid, one.starts) for one in places] == [
        (sets, (8, 6), True), (sets, (8, 6), False), (sets, (4, 3), True),
    ]  # fmt: skip
    assert geometry.reduced(RATIO) == {0: ((8, 6), (6, 4)), 2: ((3, 2), (2, 1))}
    rows = geometry.rows(hybrids.planned(geometry, RATIO))
    expected = [(48, 48, 24, 24), (24, 24, 24, 24), (6, 6, 2, 2)]
    assert [tuple(n // sets for n in one) for one in rows] == expected
    assert geometry.tokens == 48 * sets


@pytest.mark.parametrize("grid", [(8, 6), (16, 16), (7, 7), (3, 14)])
def test_a_number_of_tokens_tells_rows_and_columns(grid: tuple[int, int]) -> None:
    for thousandths in range(1, 1001):
        left = cells(thousandths / 1000, grid)
        if min(left):
            assert shaped(grid, left[0] * left[1]) == left


def test_a_number_of_tokens_that_no_share_leaves() -> None:
    with pytest.raises(ValueError, match="no share leaves so many"):
        shaped((8, 6), 23)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("ratio", [None, RATIO])
def test_work_is_that_of_the_graph(net: hybrids.Net, ratio: float | None, hard: bool) -> None:
    plan = dense_plan(net.geometry.depth)
    if ratio is not None:
        plan = hybrids.planned(net.geometry, ratio, hard=hard)
    elif hard:
        return
    counted = counted_macs.of(net.lower(plan, opset=17, batch_size=1))
    assert counted == net.geometry.macs(plan)


def test_nothing_merged_is_timms_forward(net: hybrids.Net) -> None:
    plan = dense_plan(net.geometry.depth)
    wanted = net.model(net.images)
    assert _off(net.logits(plan), wanted) < CLOSE


def test_masks_that_keep_all_tokens_are_dense(net: hybrids.Net) -> None:
    for hard in (False, True):
        plan = hybrids.planned(net.geometry, 1.0, hard=hard)
        assert _off(net.logits(plan), net.model(net.images)) < CLOSE


@pytest.mark.parametrize(
    ("opset", "hard", "ratio"),
    [
        (16, False, RATIO),
        (16, True, RATIO),
        (opsets.newest_opset(), True, RATIO),
        (17, False, 0.95),
    ],
)  # the last moves tokens without merging them to fewer, and what lies beside them
def test_the_file_is_the_reference(net: hybrids.Net, opset: int, hard: bool, ratio: float) -> None:
    plan = hybrids.planned(net.geometry, ratio, hard=hard, moved=True)
    traces = net.traces(plan)
    for batch in (None, 1):
        model = net.lower(plan, opset=opset, batch_size=batch, token_counts=True)
        onnx.checker.check_model(model, full_check=True)
        number = batch or BATCH
        outputs = _run(model, net.images[:number].numpy(), net.geometry.depth)
        for image, trace in enumerate(traces[:number]):
            blocks = [outputs[f"block_{n:02d}/tokens"][image] for n in range(net.geometry.depth)]
            pairs = [(outputs["embed/tokens"][image], trace.embedded)]
            pairs += list(zip(blocks, trace.tokens, strict=True))
            pairs.append((outputs["logits"][image], trace.logits))
            for found, wanted in pairs:
                assert _off(torch.from_numpy(found), wanted) < CLOSE
            assert tuple(outputs["token_counts"][image]) == trace.counts


def test_a_target_that_nobody_reaches(net: hybrids.Net) -> None:
    """It is masked in later attention, and an empty cell of a map."""
    plan = hybrids.planned(net.geometry, RATIO, moved=True)
    parameters = {name: value.clone() for name, value in plan.parameters.items()}
    mask = next(name for name in parameters if name.endswith("mask0"))
    parameters[mask][:, 5] = 0.0
    for name in parameters:
        if name.endswith("step"):
            parameters[name].zero_()  # else the column would fill
    plan = replace(plan, parameters=parameters)
    traces = net.traces(plan)
    assert not traces[0].sizes[0][5::24].any()
    assert (traces[0].sizes[0] == 0).sum() == net.geometry.places()[0].sets
    outputs = _run(net.lower(plan, opset=17), net.images.numpy(), net.geometry.depth)
    for image, trace in enumerate(traces):
        assert _off(torch.from_numpy(outputs["logits"][image]), trace.logits) < CLOSE


def test_empty_tokens_of_a_mobilevit_change_nothing_behind_them() -> None:
    """What stands in them is arbitrary: with other MLP biases in their place all is the same."""
    net = hybrids.net(MOBILEVIT)
    plan = hybrids.planned(net.geometry, RATIO)
    parameters = dict(plan.parameters)
    mask = next(name for name in parameters if name.endswith("mask0"))
    thinned = parameters[mask].clone()
    thinned[:, 5] = 0.0
    with_empty = replace(plan, parameters={**parameters, mask: thinned})
    journey = Journey(with_empty)
    model: Any = net.model
    unit = model.stages[1][1]
    given = torch.randn(
        1, unit.conv_kxk.conv.in_channels, 16, 12, generator=torch.Generator().manual_seed(0)
    )
    seen: list[torch.Tensor] = []
    unit.conv_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net.made.module("eager")._patches(unit, given, journey)
    unit.conv_proj._forward_pre_hooks.clear()
    empty = seen[0][0, :, 2:4, 2:4]  # the cell of target 5, of rows of four
    assert not empty.any()
    assert seen[0].any()


def test_means_of_cells_are_what_average_pooling_gives() -> None:
    """At a quarter of the tokens masks start as means of 2 x 2: EfficientViT written again."""
    net = hybrids.net(EFFICIENTVIT)
    geometry = net.made.describe(net.model, (256, 128))
    images = hybrids.image((256, 128), 2)
    plan = hybrids.planned(geometry, 0.25)
    model: Any = net.model
    x = model.stem(images)
    for stage in model.stages:
        first = True
        for block in stage.blocks:
            if not hasattr(block, "context_module"):
                x = block(x)
                continue
            x = block.context_module(x)
            x = nn.functional.avg_pool2d(x, 2) if first else x
            x, first = block.local_module(x), False
    assert _off(net.logits(plan, images), model.head(x)) < CLOSE


def test_a_mobilevit_block_with_means_of_cells() -> None:
    """Its tokens by hand: pixels of one place in their patch are averaged over 2 x 2 patches."""
    net = hybrids.net(MOBILEVIT)
    model: Any = net.model
    geometry = net.made.describe(net.model, (64, 64))
    images = hybrids.image((64, 64), 1)
    plan = hybrids.planned(geometry, 0.25)
    x = model.stages[1][0](model.stages[0](model.stem(images)))
    unit = model.stages[1][1]
    maps = unit.conv_1x1(unit.conv_kxk(x))
    fields, beside = [], []
    for y, z in ((0, 0), (0, 1), (1, 0), (1, 1)):
        one, two = unit.transformer
        tokens = maps[:, :, y::2, z::2].flatten(2).mT  # [1, 64, C]
        tokens = tokens + one.attn(one.norm1(tokens))
        field = nn.functional.avg_pool2d(tokens.mT.reshape(1, -1, 8, 8), 2).flatten(2).mT
        field = unit.norm(two(field + one.mlp(one.norm2(field))))
        fields.append(field.mT.reshape(1, -1, 4, 4))
        beside.append(nn.functional.avg_pool2d(x[:, :, y::2, z::2], 2))
    folded, given = (
        nn.functional.pixel_shuffle(torch.stack(parts, 2).flatten(1, 2), 2)
        for parts in (fields, beside)
    )
    wanted = unit.conv_fusion(torch.cat((given, unit.conv_proj(folded)), 1))
    module = net.made.module("eager")
    found = module._patches(unit, x, Journey(plan))
    assert _off(found, wanted) < CLOSE


def test_masks_once_in_a_stage(net: hybrids.Net) -> None:
    steps, weights = stages.of_ratio(net.geometry, RATIO, hard=False)
    assert sorted(steps) == [0, 2]
    shapes = {name: np.shape(value) for name, value in weights.items()}
    assert stages.of_shapes("file", net.geometry, shapes, False) == steps
    plan = Plan("ltm_transformer", stages.plan_of(net.geometry, steps).blocks)
    net.geometry.require_possible(plan)
    mask = np.array(weights[f"{steps[0][0].name}.mask0"])
    assert mask.shape == (48, 24)
    assert (mask.sum(1) == 1).all()
    assert mask.sum(0).all()


def _off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference, in the largest number of what is wanted."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def _run(model: onnx.ModelProto, images: Any, depth: int) -> dict[str, Any]:
    """All outputs, and the tokens behind each block."""
    names = {"embed/tokens": 1} | {f"block_{block:02d}/tokens": 1 for block in range(depth)}
    return TappedSession(model, names, quiet=True).run(images)
