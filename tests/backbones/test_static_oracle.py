"""Static graphs and the reference against the slow NumPy oracle: fixed rates, budgets, PatchMerger.

What a rate comes to in each block is stated here in numbers; the package's own reading of it only
makes the plans that are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ltmp_export import families
from ltmp_export.checkpoint import rates
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.plan.geometry import Vit
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.step import Step
from ltmp_export.reference import Reference, Trace
from ltmp_export.runtimes import opsets
from ltmp_export.statements.choices import Choices
from ltmp_export.steps.merge_most.step import MergeMost
from ltmp_export.steps.prune_least.step import PruneLeast
from tests import tolerances
from tests.backbones.test_distilled import distilled
from tests.backbones.test_oracle import equal_keys, one_colour
from tests.backbones.test_vit_pytorch import random_weights
from tests.conftest import cluster_layers
from tests.makers import random_vits
from tests.makers.exported import Exported, numpy_weights
from tests.makers.random_vits import DEEP, EVEN, ODD, TIED, Case
from tests.oracles import oracle_static
from tests.oracles.oracle import OracleResult
from tests.oracles.oracle_static import BudgetResult

FAMILIES = families.counted()
LEARNED = families.learned()
OPSETS = (16, 17, 20, opsets.newest_opset())

# Where scores are nearer to one another than this, float32 may rank them otherwise: a similarity is
# off by up to 5.3e-7 in these models, an importance by up to 3.7e-7.
DECIDED = 2e-6

# --r, and what it means for a model of three blocks
RATES: Mapping[str, tuple[int, ...]] = {
    "1": (1, 1, 1),
    "3": (3, 3, 3),
    "99": (99, 99, 99),
    "0,5,0": (0, 5, 0),
    "4,0,3": (4, 0, 3),
    "4:-1": (8, 4, 0),
    "4:1": (0, 4, 8),
    "4:0.5": (2, 4, 6),
}


@dataclass(frozen=True)
class Form:
    """What one form of a model gave: logits [B, classes], counts and overflow [B, depth]."""

    name: str
    tolerance: float
    logits: NDArray[Any]
    counts: NDArray[np.int64]
    overflow: NDArray[np.int64]


def forms(model: VisionTransformer, vit: Vit, plan: Plan, images: Tensor, opset: int) -> list[Form]:
    """The batch in one call, image by image, in a graph of single images, and the reference."""
    batches = Exported(vit, plan, model, opset)
    single = Exported(vit, plan, model, opset, batch_size=1)
    return [
        _exported("one call", batches, images, len(images)),
        _exported("batch 1", batches, images, 1),
        _exported("single images", single, images, 1),
        _referenced("reference", Reference(model, plan), images, tolerances.RANDOM_REFERENCE),
        _referenced(
            "reference in float64",
            Reference(model, plan, torch.float64),
            images,
            tolerances.RANDOM_REFERENCE_64,
        ),
    ]


def _exported(name: str, exported: Exported, images: Tensor, batch: int) -> Form:
    names = ["logits", "token_counts"]
    names += [out.name for out in exported.session.get_outputs() if out.name == "overflow"]
    parts = [
        exported.session.run(names, {"images": images[start : start + batch].numpy()})
        for start in range(0, len(images), batch)
    ]
    logits, counts, *more = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    overflow = more[0] if more else np.zeros_like(counts)
    return Form(name, tolerances.RANDOM_EXPORTED, logits, counts, overflow)


def _referenced(name: str, reference: Reference, images: Tensor, tolerance: float) -> Form:
    traces = [reference.run(image) for image in images]
    logits = np.stack([trace.logits.numpy() for trace in traces])
    counts = np.array([trace.counts for trace in traces])
    return Form(name, tolerance, logits, counts, np.array([_dropped(trace) for trace in traces]))


def _dropped(trace: Trace) -> list[int]:
    """Tokens that a budget had no room for, by block."""
    found = []
    for decisions in trace.decisions:
        fits = [d for d in decisions if d.step.action == "fit"]
        found.append(sum(int((~d.chosen).sum()) for d in fits))
    return found


def agree(
    found: Sequence[Form],
    expected: Sequence[OracleResult] | Sequence[BudgetResult],
    rows: NDArray[np.bool_],
) -> None:
    """All forms agree with the oracle in these rows, and are finite in all."""
    logits = np.stack([result.logits for result in expected])
    counts = np.array([result.counts for result in expected])
    overflow = np.array([getattr(result, "overflow", [0] * counts.shape[1]) for result in expected])
    for form in found:
        assert np.isfinite(form.logits).all(), form.name
        np.testing.assert_array_equal(form.counts[rows], counts[rows], form.name)
        np.testing.assert_array_equal(form.overflow[rows], overflow[rows], form.name)
        np.testing.assert_allclose(
            form.logits[rows], logits[rows], rtol=0, atol=form.tolerance, err_msg=form.name
        )


def decided(expected: Sequence[OracleResult] | Sequence[BudgetResult]) -> NDArray[np.bool_]:
    """The rows whose decisions float32 cannot flip: most of them."""
    rows = np.array([result.margin > DECIDED for result in expected])
    assert rows.mean() > 0.5
    return rows


# Fixed rates


def shares(family: str, stated: Sequence[int]) -> dict[str, list[int]]:
    """What each kind of step takes, by METHOD §1 in whole numbers."""
    if family in ("m", "p"):
        return {"merge": list(stated), "prune": list(stated)}
    last = max(len(stated) - 1, 1)
    prune = [min(r, max(0, (last + (r - 2) * i) // last)) for i, r in enumerate(stated)]
    return {"merge": [r - p for r, p in zip(stated, prune, strict=True)], "prune": prune}


def judge(
    model: VisionTransformer, vit: Vit, images: Tensor, family: str, stated: Sequence[int]
) -> list[OracleResult]:
    """What the oracle gives for each image."""
    weights, taken = numpy_weights(model), shares(family, stated)
    return [
        oracle_static.run_fixed(
            weights,
            image.numpy(),
            family=family,
            merge=taken["merge"],
            prune=taken["prune"],
            heads=vit.heads,
            eps=vit.norm_eps,
            pool=vit.pool,
            activation=vit.activation,
        )
        for image in images
    ]


def planned(family: str, text: str, vit: Vit) -> Plan:
    return rates.plan(families.load(family), rates.parse(text, vit.depth), vit)


def compare(
    case: Case, images: Tensor, family: str, text: str, stated: Sequence[int], opset: int
) -> list[OracleResult]:
    """All forms of a case against the oracle, where its margins allow it."""
    model, vit = random_vits.build(case)
    expected = judge(model, vit, images, family, stated)
    found = forms(model, vit, planned(family, text, vit), images, opset)
    agree(found, expected, decided(expected))
    return expected


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("case", [c for c in random_vits.OPTIONS if c is not DEEP], ids=str)
def test_options(case: Case, turn: int) -> None:
    """Every option of the model, under one family, rate and opset or another."""
    turn += case.seed
    family, text = FAMILIES[turn % len(FAMILIES)], list(RATES)[turn // 2 % len(RATES)]
    _, vit = random_vits.build(case)
    images = random_vits.images(vit, case.seed)
    expected = compare(case, images, family, text, RATES[text], OPSETS[turn % len(OPSETS)])
    assert max(result.counts[-1] for result in expected) < vit.tokens


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", [EVEN, ODD], ids=str)
@pytest.mark.parametrize("text", RATES)
def test_rates(text: str, case: Case, family: str) -> None:
    _, vit = random_vits.build(case)
    compare(case, random_vits.images(vit, 100, batch=3), family, text, RATES[text], 17)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("opset", OPSETS)
def test_opsets(opset: int, family: str) -> None:
    _, vit = random_vits.build(DEEP)
    images = random_vits.images(vit, 101, batch=8)
    compare(DEEP, images, family, "6:-0.5", (9, 7, 5, 3), opset)


def test_what_rates_leave() -> None:
    """In plain numbers, for ten tokens: what the oracle counts is what METHOD §1 says."""
    model, vit = random_vits.build(EVEN)
    image = random_vits.images(vit, EVEN.seed, batch=1)
    left = {
        ("m", "3"): (7, 4, 3),  # of four tokens only one source is not the class token
        ("m", "99"): (6, 4, 3),
        ("p", "99"): (6, 4, 3),
        ("p", "4,0,3"): (6, 6, 4),
        ("mp", "99"): (5, 2, 2),  # 4 merge and 1 goes, 2 merge and 1 goes
        ("pm", "99"): (5, 2, 2),  # 1 goes and 4 merge, 2 go and 1 merges
        ("mp", "0,5,0"): (10, 5, 5),
        ("mp", "1"): (9, 8, 7),
    }
    for (family, text), counts in left.items():
        (found,) = judge(model, vit, image, family, RATES[text])
        assert found.counts == counts, (family, text)


@pytest.mark.parametrize("family", ["mp", "pm"])
def test_pruning_sorts_where_it_takes_none(family: str) -> None:
    """With --r 1 all blocks but the first merge one token and prune none."""
    model, vit = random_vits.build(DEEP)
    images = random_vits.images(vit, 102)
    assert shares(family, (1,) * 4) == {"merge": [0, 1, 1, 1], "prune": [1, 0, 0, 0]}
    expected = compare(DEEP, images, family, "1", (1,) * 4, 17)
    steps = planned(family, "1", vit).blocks
    unsorted = Plan(family, tuple(tuple(s for s in block if _count(s)) for block in steps))
    other = _referenced("", Reference(model, unsorted, torch.float64), images, 0.0)
    apart = np.abs(other.logits - np.stack([result.logits for result in expected])).max(1)
    assert (apart > 10 * tolerances.RANDOM_EXPORTED).mean() > 0.5


def _count(step: Step) -> int:
    assert isinstance(step, (MergeMost, PruneLeast))
    return step.count


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize("patches", [1, 2, 3])
def test_few_patches(patches: int, pool: str, family: str) -> None:
    """Of three tokens one can go; two are the least there can be."""
    options = {"img_size": (4, 4 * patches), "global_pool": pool, "fc_norm": False}
    case = Case("few_patches", 30 + patches, options)
    _, vit = random_vits.build(case)
    expected = compare(case, random_vits.images(vit, 103), family, "3", (3, 3, 3), 17)
    one_step = patches == 3 and family in ("m", "p")
    assert {result.counts for result in expected} == {(3, 2, 2) if one_step else (2, 2, 2)}


@pytest.mark.parametrize("family", FAMILIES)
def test_one_block(family: str) -> None:
    case = Case("one_block", 34, {"depth": 1, "img_size": (16, 16)})
    _, vit = random_vits.build(case)
    expected = compare(case, random_vits.images(vit, 104), family, "5", (5,), 17)
    assert {result.counts for result in expected} == {(12,)}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", random_vits.POOLED, ids=str)
def test_one_colour(case: Case, family: str) -> None:
    """Images of one colour: tokens differ by their position only."""
    _, vit = random_vits.build(case)
    compare(case, one_colour(vit), family, "3", (3, 3, 3), 17)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_colour_beside_others(family: str) -> None:
    """Without positions all tokens of an image of one colour tie; its neighbours do not care."""
    model, vit = random_vits.build(TIED)
    images = torch.cat([one_colour(vit)[:2], random_vits.images(vit, 105, batch=5)])
    expected = judge(model, vit, images, family, (3, 3, 3))
    rows = decided(expected)
    assert rows[2:].all()
    found = forms(model, vit, planned(family, "3", vit), images, 17)
    agree(found, expected, rows)
    for form in found:
        np.testing.assert_array_equal(form.counts, form.counts[-1:].repeat(7, 0))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", random_vits.POOLED, ids=str)
def test_ties_go_to_the_lowest_row(case: Case, family: str) -> None:
    """Every similarity is exactly 1, and importances tie exactly, until sizes differ."""
    model, vit = equal_keys(case)
    images = random_vits.images(vit, case.seed)
    expected = judge(model, vit, images, family, (3, 0, 0))
    found = forms(model, vit, planned(family, "3,0,0", vit), images, 17)
    agree(found, expected, np.full(len(images), True))


# A distillation token


@pytest.mark.parametrize("image_size", [(8, 8), (8, 16), (8, 24), (24, 24), (24, 32)], ids=str)
@pytest.mark.parametrize("text", ["3", "99", "0,2"])
def test_distilled(tmp_path: Path, image_size: tuple[int, int], text: str) -> None:
    """From three tokens on, of which two are no patches."""
    state = distilled(img_size=image_size).state_dict()
    choices = Choices(family="m", rate=text, num_heads=4)
    checkpoint = written(tmp_path, state, choices, args={"img_size": list(image_size)})
    assert (checkpoint.vit.distilled, checkpoint.vit.image_size) == (True, image_size)
    stated = {"3": (3, 3), "99": (99, 99), "0,2": (0, 2)}[text]
    images = random_vits.images(checkpoint.vit, 106)
    expected = judge(checkpoint.model, checkpoint.vit, images, "m", stated)
    agree(of(checkpoint, images, 16), expected, decided(expected))


def written(
    folder: Path, weights: Mapping[str, Tensor], choices: Choices, **content: Any
) -> Checkpoint:
    """What is read from a file of these weights."""
    torch.save({"state_dict": dict(weights), **content}, folder / "model.pth")
    return load_checkpoint(folder / "model.pth", choices)


def of(checkpoint: Checkpoint, images: Tensor, opset: int) -> list[Form]:
    return forms(checkpoint.model, checkpoint.vit, checkpoint.plan, images, opset)


# The authors' own models


@pytest.mark.parametrize("family", FAMILIES)
def test_oracle_itself(
    digits: Callable[[str], Checkpoint],
    golden: Mapping[str, NDArray[Any]],
    digit_images: Tensor,
    family: str,
) -> None:
    """What judges the tool elsewhere agrees with the authors, and r is divided as they do it."""
    checkpoint, taken = digits(family), shares(family, (8,) * 6)
    for kind in families.load(family).counts:
        assert taken[kind] == golden[f"{family}_r_{kind}"].tolist()
    expected = judge(checkpoint.model, checkpoint.vit, digit_images[:5], family, (8,) * 6)
    for row in np.flatnonzero(decided(expected)):
        result = expected[row]
        assert result.counts == tuple(golden[f"{family}_counts"][row])
        np.testing.assert_allclose(
            result.logits, golden[f"{family}_logits"][row], rtol=0, atol=tolerances.GOLDEN_ORACLE
        )


# Budgets


def judge_budget(
    model: VisionTransformer, vit: Vit, images: Tensor, plan: Plan, keep: Sequence[int]
) -> list[BudgetResult]:
    """What the oracle gives for each image; of the plan it takes the thresholds."""
    weights, thresholds = numpy_weights(model), plan.thresholds()
    return [
        oracle_static.run_budget(
            weights,
            image.numpy(),
            family=plan.family,
            merge=thresholds.get("merge"),
            prune=thresholds.get("prune"),
            keep=keep,
            heads=vit.heads,
            eps=vit.norm_eps,
            pool=vit.pool,
            activation=vit.activation,
        )
        for image in images
    ]


def budgets(counts: NDArray[np.int64], tokens: int) -> dict[str, list[int]]:
    """Budgets by what the images [B, depth] would have without one."""
    most, least = counts.max(0), counts.min(0)
    one_less = [tokens, *most[1:]]
    one_less[0] = max(3, int(most[0]) - 1)
    wanted = {
        "ample": [tokens] * len(most),
        "all fit": most.tolist(),
        "one token less": one_less,
        "tight": (least - 1).tolist(),
        "three": [3] * len(most),
    }
    falling = {name: np.minimum.accumulate(keep) for name, keep in wanted.items()}
    return {name: keep.clip(min=3).tolist() for name, keep in falling.items()}


BUDGETS = ("ample", "all fit", "one token less", "tight", "three")


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("case", random_vits.OPTIONS, ids=str)
def test_budgets(case: Case, turn: int) -> None:
    """Thresholds amid the scores, so that images differ in counts and so in what is dropped."""
    turn += case.seed
    family, name = LEARNED[turn % len(LEARNED)], BUDGETS[turn % len(BUDGETS)]
    model, vit = random_vits.build(case)
    images = random_vits.images(vit, case.seed)
    plan = random_vits.middle_plan(model, images, family, case.seed)
    free = _referenced("free", Reference(model, plan, torch.float64), images, 0.0)
    keep = budgets(free.counts, vit.tokens)[name]
    expected = judge_budget(model, vit, images, plan, keep)
    found = forms(model, vit, plan.within(keep), images, OPSETS[turn % len(OPSETS)])
    agree(found, expected, decided(expected))
    dropped = np.array([result.overflow for result in expected])
    if name in ("ample", "all fit"):
        assert not dropped.any()
        np.testing.assert_array_equal([result.counts for result in expected], free.counts)
    else:
        assert dropped.any()


@pytest.mark.parametrize("family", ["ltm", "ltpm"])
@pytest.mark.parametrize("name", BUDGETS)
def test_every_budget(name: str, family: str) -> None:
    model, vit = random_vits.build(DEEP)
    images = random_vits.images(vit, DEEP.seed)
    plan = random_vits.middle_plan(model, images, family, DEEP.seed)
    free = _referenced("free", Reference(model, plan, torch.float64), images, 0.0)
    keep = budgets(free.counts, vit.tokens)[name]
    expected = judge_budget(model, vit, images, plan, keep)
    agree(forms(model, vit, plan.within(keep), images, 17), expected, decided(expected))
    if name == "one token less":
        in_first = np.array([result.overflow[0] for result in expected])
        np.testing.assert_array_equal(in_first, free.counts[:, 0] == free.counts[:, 0].max())


# PatchMerger


@pytest.mark.parametrize("opset", [16, 17])
@pytest.mark.parametrize(
    ("tokens", "merge_at", "scale"),
    [((4,), (0,), None), ((5,), (1,), "sqrt"), ((12,), (2,), "one"), ((5, 2), (1, 2), "sqrt"),
     ((5, 1), (0, 2), "one")],
)  # fmt: skip
def test_patchmerger(
    tmp_path: Path, opset: int, tokens: tuple[int, ...], merge_at: tuple[int, ...], scale: str
) -> None:
    """Fewer mixtures than patches, and more; the scale is 1 unless stated."""
    model, vit = random_vits.build(EVEN)
    mergers = cluster_layers(vit.width, *tokens)
    choices = Choices(num_heads=2, image_size=(12, 12), merge_at=merge_at, merge_scale=scale)
    checkpoint = written(tmp_path, model.state_dict() | mergers, choices)
    images = random_vits.images(vit, 107)
    weights = numpy_weights(model) | {name: value.numpy() for name, value in mergers.items()}
    factor = vit.width**-0.5 if scale == "sqrt" else 1.0
    expected = [
        oracle_static.run_patchmerger(
            weights, image.numpy(), heads=2, merge_at=merge_at, scale=factor, dialect="deit"
        )
        for image in images
    ]
    assert expected[0].counts[-1] == 1 + tokens[-1]
    agree(of(checkpoint, images, opset), expected, np.full(len(images), True))


@pytest.mark.parametrize("opset", [16, OPSETS[-1]])
@pytest.mark.parametrize(
    ("heads", "stated", "merge_at", "scale"),
    [
        ({"heads": 2, "head_width": 12}, 2, None, None),
        ({"heads": 2, "head_width": 64}, None, (2,), "one"),  # behind the last layer
        ({"heads": 1, "head_width": 24}, None, (1,), "sqrt"),  # no projection: one head
    ],
    ids=["stated", "of width 64", "one"],
)
def test_vit_pytorch(
    tmp_path: Path,
    opset: int,
    heads: dict[str, int],
    stated: int | None,
    merge_at: tuple[int, ...] | None,
    scale: str | None,
) -> None:
    weights = random_weights(**heads)
    usual = True if stated is None else None
    choices = Choices(num_heads=stated, merge_at=merge_at, merge_scale=scale, assume_defaults=usual)
    checkpoint = written(tmp_path, weights, choices)
    assert checkpoint.vit.heads == heads["heads"]
    images = random_vits.images(checkpoint.vit, 108)
    expected = [
        oracle_static.run_patchmerger(
            {name: value.numpy() for name, value in weights.items()},
            image.numpy(),
            heads=heads["heads"],
            merge_at=merge_at,
            scale=1.0 if scale == "one" else None,
            dialect="vit_pytorch",
        )
        for image in images
    ]
    agree(of(checkpoint, images, opset), expected, np.full(len(images), True))
