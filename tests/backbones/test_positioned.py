"""timm's `Eva` and `Beit`: what attention knows of places, before and after tokens merge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from onnx import numpy_helper

from ltmp_export.backbones import chosen
from ltmp_export.backbones.positioned import eager
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import to_onnx
from ltmp_export.plan.plan import dense_plan
from ltmp_export.reference import Reference
from ltmp_export.runtimes.session import Session
from ltmp_export.statements.choices import Choices
from ltmp_export.steps import positions as steps
from tests.makers import positioned
from tests.makers.checks import check
from tests.oracles import oracle_positions
from tests.oracles.oracle_positions import Form

GRID = (4, 3)
HEAD = positioned.WIDTH // positioned.HEADS
MERGE, PRUNE = [0.2, 0.3, 0.3], [0.02, 0.05, 0.03]


def axial(name: str, **facts: Any) -> Form:
    """Rotary positions of rows and columns, as timm describes them, at a model's parameters."""
    temperature, reference = facts.pop("temperature", 10000.0), facts.pop("reference", None)
    offset, xy = facts.pop("offset", 0.0), facts.pop("xy", False)
    quarter = HEAD // 4
    bands = temperature ** -(np.arange(quarter) / quarter)

    def angle(block: int, head: int, place: tuple[float, float]) -> np.ndarray:
        at = [p + offset for p in place]
        if reference:
            at = [p / side * r for p, side, r in zip(at, GRID, reference, strict=True)]
        return np.concatenate([p * bands for p in (at[::-1] if xy else at)])

    return Form(GRID, angle, **facts)


def mixed(**facts: Any) -> Form:
    """Those with frequencies for each block and head; columns first."""
    freqs = positioned.model(positioned.MIXED).get_parameter("rope.freqs").double().numpy()
    return Form(
        GRID, lambda block, head, place: place[1] * freqs[0, block, head]
        + place[0] * freqs[1, block, head], **facts,
    )  # fmt: skip


def centred() -> Form:
    """Places between -1 and 1 in turns of periods, of channels d and d + D / 2."""
    periods = 100.0 ** (np.arange(HEAD // 4) / (HEAD // 4))

    def angle(block: int, head: int, place: tuple[float, float]) -> np.ndarray:
        at = [2 * (p + 0.5) / side - 1 for p, side in zip(place, GRID, strict=True)]
        return np.concatenate([2 * np.pi * p / periods for p in at])

    return Form(GRID, angle, half=True)


FORMS = {
    positioned.CLIP: axial(positioned.CLIP, reference=(16, 16)),
    positioned.SPATIAL: axial(positioned.SPATIAL, reference=(32, 32), offset=1.0, xy=True,
                              rotated=True),
    positioned.MIXED: mixed(merged="destination"),
    positioned.BEIT: Form(GRID, bias="blocks.{}.attn.relative_position_bias_table",
                          merged="destination"),
    positioned.DINO: centred(),  # five rows in front
    positioned.GAP: axial(positioned.GAP, reference=(16, 16)),  # a register, no class token
}  # fmt: skip


def learned(folder: Path, name: str) -> Checkpoint:
    """A checkpoint whose thresholds decide something, with what its form states."""
    form = FORMS[name]
    path = positioned.save(
        folder / f"{name}.pth", positioned.model(name), name, merge=MERGE, prune=PRUNE
    )
    stated = Choices()
    if form.angle is not None:
        rotated = "rotated" if form.rotated else "unrotated"
        stated = Choices(merged_position=form.merged, metric_position=rotated)
    return load_checkpoint(path, stated)


@pytest.mark.parametrize("name", FORMS)
def test_the_oracle_says_the_same(tmp_path: Path, name: str) -> None:
    """Reference and file, after merges and pruning, at batches of one and of all."""
    checkpoint, images = learned(tmp_path, name), positioned.images()
    weights = {key: value.numpy() for key, value in positioned.model(name).state_dict().items()}
    geometry = checkpoint.vit
    reference = Reference(checkpoint.model, checkpoint.plan, torch.float64)
    session = Session(to_onnx(checkpoint, opset=17, token_counts=True))
    logits, counts = session.run(images.numpy())
    for number, image in enumerate(images):
        wanted, tokens = oracle_positions.run(
            weights, image.double().numpy(), FORMS[name], merges=MERGE, prunes=PRUNE,
            heads=positioned.HEADS, eps=geometry.norm_eps, pool=geometry.pool,
            activation=geometry.activation,
        )  # fmt: skip
        found = reference.run(image)
        assert found.counts == tokens == tuple(counts[number])
        assert tokens[-1] < geometry.tokens - 3
        assert np.abs(found.logits.numpy() - wanted).max() < 1e-5 * np.abs(wanted).max()
        assert np.abs(logits[number] - wanted).max() < 2e-4 * np.abs(wanted).max()
        alone = session.run(image[None].numpy())[0][0]
        assert np.array_equal(alone, logits[number])


def test_a_merged_token_lies_where_it_is_said(tmp_path: Path) -> None:
    """The two statements differ, and a file of one is not equal to a checkpoint of the other."""
    mean = learned(tmp_path, positioned.CLIP)
    other = replace(mean, plan=replace(mean.plan, merged_position="destination"))
    image = positioned.images(1)[0]
    found = [Reference(one.model, one.plan).run(image).logits for one in (mean, other)]
    assert (found[0] - found[1]).abs().max() > 1e-2
    images = Images(positioned.images().numpy(), None, ("a", "b", "c"), "noise")
    assert check(to_onnx(mean, opset=17), mean, images, 1, 3).passed()
    assert not check(to_onnx(other, opset=17), mean, images).passed()


@pytest.mark.parametrize("wrong", [{"rope.angles": 1.01}, {"rope.sin": 1.001}])
def test_a_graph_that_turns_otherwise_is_found(tmp_path: Path, wrong: dict[str, float]) -> None:
    checkpoint = learned(tmp_path, positioned.CLIP)
    model = to_onnx(checkpoint, opset=17)
    for tensor in model.graph.initializer:
        if tensor.name in wrong:
            array = numpy_helper.to_array(tensor) * np.float32(wrong[tensor.name])
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    images = Images(positioned.images().numpy(), None, ("a", "b", "c"), "noise")
    assert not check(model, checkpoint, images).passed()


def test_unmerged_tokens_are_turned_by_timms_own_numbers() -> None:
    """Bit for bit, also where others have merged; a computed place is that of the table."""
    for name in (positioned.CLIP, positioned.SPATIAL, positioned.MIXED):
        model: Any = positioned.model(name)
        rule = eager.of(model, dense_plan(positioned.DEPTH))
        where = rule.initial(torch.ones(1))
        assert isinstance(rule, eager.Rotary)
        assert where is not None
        rows = where.rows.clone()
        rows[-1] *= 2  # two patches of one place
        sin, cos = rule.table(1, rows)
        whole = model.rope.get_embed()
        whole = whole[1] if whole.dim() == 4 else whole[None]
        assert torch.equal(torch.cat([sin, cos], -1)[:, 1:-1], whole[:, :-1])
        assert not sin[:, 0].any()
        assert bool((cos[:, 0] == 1).all())
        assert torch.allclose(torch.cat([sin, cos], -1)[:, -1], whole[:, -1], atol=1e-6)
        again = steps.initial(rule.grid, 1, True, rows).rows
        assert torch.equal(again, where.rows)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "name",
    [positioned.CLIP, positioned.MIXED, positioned.CORE, positioned.POST, positioned.BEIT],
)
def test_timms_forward_at_another_size(tmp_path: Path, name: str) -> None:
    """Read at the size that the file has it, and at another, as timm's own model of that size."""
    own: Any = positioned.model(name)
    path = positioned.save(tmp_path / "own.pth", own, name)
    size = (48, 80)
    timms: Any = positioned.made(name)
    timms.set_input_size(size)
    image = torch.randn(1, 1, *size)
    found = load_checkpoint(path, Choices(image_size=size), dense=True)
    with torch.inference_mode():
        wanted = timms(image)[0]
    got = Reference(found.model, found.plan).run(image[0]).logits
    assert (got - wanted).abs().max() < 2e-4 * wanted.abs().max()
    kept = load_checkpoint(path, dense=True)
    assert kept.vit.grid == GRID
    assert chosen.from_facts(chosen.to_facts(kept.vit)) == kept.vit


def test_names_tell_the_networks_of_timms_modules() -> None:
    """All of them and no other: EVA's large ones are plain ViTs, and so is BEiT-3."""
    for kind in ("eva", "beit"):
        own = set(timm.list_models(module=kind))
        assert {name for name in timm.list_models() if chosen.by_keys((), name) == kind} == own
