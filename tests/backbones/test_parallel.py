"""Blocks whose MLP runs beside attention: what they cost, what is told of them, who trains them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ltmp_export.checkpoint.load import load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.model_file.model import to_onnx
from ltmp_export.plan.parallel import APART, JOINED
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.vit import Vit
from ltmp_export.plan.work import dense_macs, macs
from ltmp_export.reference import Reference
from ltmp_export.statements.choices import Choices
from ltmp_export.steps.merge_mask.step import MergeMask
from ltmp_export.steps.mergence.step import Mergence
from ltmp_export.training.budget import mac_ratio
from ltmp_export.training.static_model import StaticVit
from tests.makers import counted_macs, odd_layers, random_vits
from tests.makers.random_vits import bare
from tests.oracles import agreement

CASES = (odd_layers.PARALLEL, odd_layers.PARALLEL_JOINED, odd_layers.PARALLEL_DIFFERENTIAL)


def test_work_is_what_the_graph_executes() -> None:
    """All of a block runs on what it receives: what it drops saves in the next one."""
    model, vit = random_vits.build(odd_layers.PARALLEL_JOINED)
    plan = agreement.planned("p", "2", vit)
    file = to_onnx(bare(model, vit, plan), opset=17, batch_size=1)
    image = random_vits.images(vit, 1, 1).numpy()
    assert counted_macs.executed(file, image) == vit.macs(plan) < dense_macs(vit)


def test_training_steers_by_that_work() -> None:
    _, vit = random_vits.build(odd_layers.PARALLEL_JOINED)
    counts = [8, 5, 3]
    fixed = dense_macs(replace(vit, depth=1)) - (
        dense_macs(replace(vit, depth=2)) - dense_macs(replace(vit, depth=1))
    )
    wanted = (macs(vit, counts) - fixed) / (dense_macs(vit) - fixed)
    kept = torch.tensor(counts, dtype=torch.float64) / vit.tokens
    assert float(mac_ratio(vit, kept)) == pytest.approx(wanted, rel=1e-12)


def test_static_training_is_the_reference() -> None:
    model, vit = random_vits.build(odd_layers.PARALLEL_JOINED)
    plan = Plan("multiscale_mergence", ((Mergence(5, "uniform"),), (), ()))
    images = random_vits.images(vit, 3, 2)
    logits = StaticVit(model, plan).eval()(images).logits.detach()
    wanted = torch.stack([Reference(model, plan).run(image).logits for image in images])
    torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-5)


def test_names_and_shapes_tell_them(tmp_path: Path) -> None:
    """All but the heads where neither a norm of theirs nor a known width tells."""
    path, stated = tmp_path / "bare.pth", Choices(family="m", rate="2", image_size=(16, 12))
    for case, kind in zip(CASES, (APART, JOINED, JOINED), strict=True):
        model, vit = random_vits.build(case)
        torch.save(model.state_dict(), path)
        asked = replace(stated, image_size=vit.image_size)
        if case is odd_layers.PARALLEL:
            with pytest.raises(InputError, match="nothing tells the number of heads"):
                load_checkpoint(path, asked)
            asked = replace(asked, num_heads=2)
        found = load_checkpoint(path, replace(asked, norm_eps=vit.norm_eps))
        assert replace(found.vit, name=vit.name) == vit
        assert (vit.parallel, vit.heads) == (kind, 2)
        assert Vit.from_json(json.loads(json.dumps(vit.to_json()))) == vit
        images = random_vits.images(vit, 1, 2)
        assert torch.equal(found.model(images), model(images))


def test_what_is_not_whole_or_cannot_be_is_said(tmp_path: Path) -> None:
    model, vit = random_vits.build(odd_layers.PARALLEL_JOINED)
    state, path = model.state_dict(), tmp_path / "bare.pth"
    stated = Choices(family="m", rate="2")
    torch.save({k: v for k, v in state.items() if k != "blocks.1.out_proj.weight"}, path)
    with pytest.raises(InputError, match=r"1 missing \(blocks.1.out_proj.weight\)"):
        load_checkpoint(path, stated)
    short = {"blocks.0.in_proj.weight": torch.ones(144, 48)}
    torch.save(state | short, path)
    with pytest.raises(InputError, match="too few rows for queries, keys, values and MLP"):
        load_checkpoint(path, stated)
    torch.save(state, path)
    with pytest.raises(InputError, match="gives back behind MLPs, which run beside attention"):
        load_checkpoint(path, Choices(family="ltm_transformer", restore=True))
    step = MergeMask("blocks.0.ltm", "ltm.mask0", 9, 4, restore=True)
    given_back = Plan("ltm_transformer", ((step,),) * vit.depth)
    with pytest.raises(ValueError, match="give back behind MLPs, which run beside attention"):
        vit.require_possible(given_back)
    with pytest.raises(ValueError, match="parallel blocks 'joined' with other parts"):
        replace(vit, post_norm=True)
