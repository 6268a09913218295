"""LTM-Transformer on ViTs against a slow oracle; what is assumed of it, METHOD §1 says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltmp_export import load_checkpoint
from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.families import ltm_transformer
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.plan.cells import cells, lies_in
from ltmp_export.plan.plan import Plan, dense_plan
from ltmp_export.plan.vit import Vit
from ltmp_export.plan.work import executed_macs, share
from ltmp_export.precision.formats import FP16, INT8, Precision
from ltmp_export.reference import Reference
from ltmp_export.runtimes import opsets
from ltmp_export.statements.choices import Choices
from ltmp_export.steps.merge_mask import eager
from ltmp_export.steps.merge_mask.step import MASK, MergeMask
from ltmp_export.steps.tokens import Tokens
from tests.conftest import load_torch
from tests.makers import masks, random_vits
from tests.makers.exported import Exported, numpy_weights
from tests.oracles.oracle_masks import run_masks
from tests.tolerances import RANDOM_EXPORTED

SWITCHES = [(hard, restore) for hard in (False, True) for restore in (False, True)]
NAMES = [f"{'hard' if h else 'soft'}-{'restored' if r else 'merged'}" for h, r in SWITCHES]
STATED = Choices(num_heads=2, mean=(0.5,) * 3, std=(0.5,) * 3)
ASKED = replace(STATED, family="ltm_transformer")
DEIT_S = Vit(
    "deit_small_patch16_224",
    (224, 224), (16, 16), 3, 1000, 12, 384, 1536, 6, 64, 1e-6, "gelu", "token",
)  # fmt: skip
Array = NDArray[Any]


def placed_plan(vit: Vit, parameters: dict[str, Tensor] | None = None, **stated: Any) -> Plan:
    """The plan of what is stated, with weights as training starts or others."""
    every = {"compression_ratio": None, "merge_at": None, "hard": None, "restore": None}
    placed = ltm_transformer.from_stated("a test", vit, **every | stated)
    own = {n: torch.tensor(v, dtype=torch.float32) for n, v in placed.parameters.items()}
    blocks = tuple(placed.blocks.get(block, ()) for block in range(vit.depth))
    return Plan("ltm_transformer", blocks, parameters=own | (parameters or {}))


def drawn(vit: Vit, plan: Plan, seed: int) -> Plan:
    """With a mask of weights between 0 and 1.4, a target that few reach, and steps that move."""
    draw = torch.Generator().manual_seed(seed)
    own: dict[str, Tensor] = {}
    for name, value in plan.parameters.items():
        noise = torch.rand(value.shape, generator=draw)
        own[name] = 4 * noise + 2 if name.endswith("step") else noise
    own["ltm.mask0"] = plan.parameters["ltm.mask0"] + 0.4 * own["ltm.mask0"]
    own["ltm.mask0"][:, -1] *= 0.01
    return replace(plan, parameters=own)


@pytest.mark.parametrize(("hard", "restore"), SWITCHES, ids=NAMES)
@pytest.mark.parametrize("number", [2, 10, 22])  # deep; averages, with a norm behind; all options
def test_reference_and_graph_are_the_oracles(number: int, hard: bool, restore: bool) -> None:
    case = random_vits.OPTIONS[number]
    model, vit = random_vits.build(case)
    plan = placed_plan(vit, compression_ratio=0.3, hard=hard, restore=restore)
    plan, images = drawn(vit, plan, case.seed), random_vits.images(vit, case.seed, 4)
    weights = numpy_weights(model) | {k: v.numpy() for k, v in plan.parameters.items()}
    found = [
        run_masks(
            weights, image.numpy(), heads=vit.heads, hard=hard, restore=restore, pool=vit.pool,
            activation=vit.activation,
        )
        for image in images
    ]  # fmt: skip
    assert min(one.margin for one in found) > 1e-6
    assert any(len(reached) < cells_of(vit) for one in found for reached in one.reached) or not hard
    reference = Reference(model, plan, torch.float64)
    for image, one in zip(images, found, strict=True):
        trace = reference.run(image)
        assert np.abs(trace.logits.numpy() - one.logits).max() < 1e-8
        _require_decisions(trace.decisions, one.reached, one.into, restore)
    expected = np.stack([one.logits for one in found])
    for opset in (16, 17, opsets.newest_opset()):
        for batch_size in (None, 1):
            exported = Exported(vit, plan, model, opset, batch_size)
            for size in (1, 3) if batch_size is None else (1,):
                logits = exported.run_in_batches(images, size).logits
                assert np.abs(logits - expected).max() < RANDOM_EXPORTED


def cells_of(vit: Vit) -> int:
    rows, columns = cells(0.3, vit.grid)
    return rows * columns


def _require_decisions(decisions: Any, reached: Any, into: Any, restore: bool) -> None:
    """The reference's decisions are the oracle's."""
    taken = [block[0] for block in decisions if block]
    for place, decision in enumerate(taken):
        if not restore:
            assert torch.nonzero(decision.chosen)[:, 0].tolist() == list(reached[place])
        if into:
            partners = decision.partners
            own = torch.where(partners.best > 0, partners.index, -1)[partners.moved]
            assert own.tolist() == list(into[place])


@pytest.mark.parametrize(("hard", "restore"), SWITCHES, ids=NAMES)
def test_one_target_for_each_patch_is_dense(hard: bool, restore: bool) -> None:
    """P = N, the first mask the identity, no step: to 2e-6, for columns divide by 1 + 1e-6."""
    model, vit = random_vits.build(random_vits.DEEP)
    plan = placed_plan(vit, compression_ratio=1.0, hard=hard, restore=restore)
    assert torch.equal(plan.parameters["ltm.mask0"], torch.eye(vit.patches))
    image = random_vits.images(vit, 1, 1)[0]
    own, dense = (
        Reference(model, each, torch.float64).run(image) for each in (plan, dense_plan(vit.depth))
    )
    scale = max(1.0, float(dense.logits.abs().max()))
    # of a merge for good every later block sees what it divided by, some 1e-6 each
    assert float((own.logits - dense.logits).abs().max()) < 2e-6 * scale * vit.depth
    first = next(at for at, steps in enumerate(plan.blocks) if steps)
    apart = (own.tokens[first] - dense.tokens[first]).norm(dim=-1)
    assert (apart / dense.tokens[first].norm(dim=-1)).max() < 2e-6


def test_columns_sum_to_nearly_one_and_empty_ones_to_nothing() -> None:
    mask = torch.rand(9, 4, dtype=torch.float64)
    mask[:, 2] = 0
    sums = mask.sum(0)
    shares = eager.column_shares(mask).sum(0)
    assert torch.allclose(shares, sums / (sums + 1e-6), rtol=0, atol=1e-15)
    assert shares[2] == 0


def merged(step: MergeMask, mask: Tensor, **more: Any) -> tuple[Tokens, Tokens, dict[str, Tensor]]:
    """Tokens before and behind a step whose mask does not move."""
    weights = {"ltm.mask0": mask, "b.center": torch.zeros(6), "b.step": torch.zeros(1)}
    x = torch.randn(10, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    given = Tokens(x, x.new_ones(10), {}, 1)
    return given, eager.take(step, given, None, weights)[0], weights


@pytest.mark.parametrize("hard", [False, True])
def test_a_row_of_zeros_reaches_nothing(hard: bool) -> None:
    mask = masks.near_cells(3, 2).double()
    mask[4] = 0
    step = MergeMask("b", "ltm.mask0", 9, 4, hard=hard, restore=True)
    given, made, weights = merged(step, mask)
    changed = replace(given, x=given.x.clone())
    changed.x[5] += 7  # of patch 4
    assert torch.equal(eager.take(step, changed, None, weights)[0].x, made.x)
    behind = eager.restore(step, given, made, replace(made, x=made.x + 3), weights)
    assert torch.equal(behind.x[5], given.x[5])
    assert (behind.x[1:5] - given.x[1:5]).abs().min() > 2.9


def test_of_equal_weights_a_patch_goes_to_the_lowest() -> None:
    mask = torch.full((9, 4), 0.5, dtype=torch.float64)
    step = MergeMask("b", "ltm.mask0", 9, 4, hard=True)
    given, made, _ = merged(step, mask)
    assert made.size.tolist() == [1, 1, 0, 0, 0]
    assert torch.allclose(made.x[1], given.x[1:].mean(0), atol=1e-6)
    assert made.handed[MASK][:, :, 1:].abs().max() == 0


def test_sets_are_apart() -> None:
    """Two sets of patches give what each gives by itself."""
    mask = masks.near_cells(3, 2).double()
    weights = {"ltm.mask0": mask, "b.center": torch.ones(6), "b.step": torch.full((1,), 3.0)}
    x = torch.randn(18, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for hard in (False, True):
        step = MergeMask("b", "ltm.mask0", 9, 4, hard=hard)
        both = eager.take(replace(step, sets=2), Tokens(x, x.new_ones(18), {}, 0), None, weights)[0]
        halves = [
            eager.take(step, Tokens(half, half.new_ones(9), {}, 0), None, weights)[0]
            for half in x.chunk(2)
        ]
        assert torch.allclose(both.x, torch.cat([half.x for half in halves]), atol=1e-12)
        assert torch.equal(both.size, torch.cat([half.size for half in halves]))


def test_nothing_in_the_graph_depends_on_the_data(trained: Checkpoint) -> None:
    shaped = {"NonZero", "Compress", "Loop", "If", "Scan", "ScatterND", "ScatterElements", "Unique"}
    for restore in (False, True):
        made = to_onnx(masks.digits(trained, hard=True, restore=restore), opset=17)
        assert not shaped & {node.op_type for node in made.graph.node}
        assert {entry.domain for entry in made.opset_import} == {""}


def test_multiply_accumulates_of_deit_small() -> None:
    """By hand: three products of a mask, four where patches are restored, none of it looked up."""
    own = 196 * 49 * 384
    for hard, restore, products, where in (
        (False, False, 3, [4]), (False, True, 4, range(12)), (True, True, 3, range(12)),
    ):  # fmt: skip
        plan = placed_plan(DEIT_S, compression_ratio=0.25, hard=hard, restore=restore)
        counts = plan.counts(197, 1)
        by_hand = 196 * 16 * 16 * 3 * 384 + 1000 * 384 + len(where) * products * own
        for block in range(12):
            attended = 197 if restore or block <= 4 else 50
            by_hand += 4 * attended * 384**2 + 2 * attended**2 * 384
            by_hand += 8 * (50 if restore or block >= 4 else 197) * 384**2
        assert executed_macs(DEIT_S, plan, counts) == by_hand


@pytest.mark.parametrize("target", [0.9, 0.6, 0.5])
def test_a_target_picks_the_ratio(target: float) -> None:
    for restore in (False, True):
        if restore and target == 0.5:
            continue
        plan = placed_plan(DEIT_S, reduction_target=target, restore=restore)
        assert target - 0.07 < share(DEIT_S, plan) <= target


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"reduction_target": 0.2, "restore": True}, "masks in all blocks cannot leave so little"),
        ({"reduction_target": 0.2, "compression_ratio": 0.5}, "say the same in two ways"),
        ({"reduction_target": 1.2}, "--reduction-target 1.2: expected a share"),
        ({"compression_ratio": 0}, "--compression-ratio 0: expected a share"),
        ({"compression_ratio": True}, "--compression-ratio True: expected a share"),
        ({"compression_ratio": 0.0001}, "--compression-ratio 0.0001 leaves no patch"),
        ({"merge_at": (3, 6)}, "--merge-at 3,6: expected one of the 12 blocks"),
        ({"merge_at": (-1,)}, "--merge-at -1: expected one of the 12 blocks"),
        ({"merge_at": (12,)}, "--merge-at 12: expected one of the 12 blocks"),
        ({"merge_at": (3,), "restore": True}, "with --restore all blocks merge"),
    ],
)
def test_statements_that_cannot_be(stated: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        placed_plan(DEIT_S, **stated)


def test_cells_of_a_grid() -> None:
    assert cells(0.75, (14, 14)) == (12, 12)
    assert cells(0.25, (14, 14)) == (7, 7)
    assert cells(0.25, (5, 6)) == (3, 3)
    assert lies_in((2, 3), (1, 2)) == [0, 0, 1, 0, 0, 1]


@pytest.fixture(scope="module")
def trained(digits_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("masks") / "c.pth"
    torch.save(masks.content(load_torch(digits_base)), path)
    return load_checkpoint(path, STATED)


def few(count: int) -> Images:
    pixels = np.random.default_rng(3).standard_normal((count, 3, 32, 32)).astype(np.float32)
    return Images(pixels, None, tuple(map(str, range(count))), "test")


@pytest.mark.parametrize(("hard", "restore"), SWITCHES, ids=NAMES)
def test_files_pass_the_check_in_every_precision(
    trained: Checkpoint, hard: bool, restore: bool
) -> None:
    images, checkpoint = few(3), masks.digits(trained, hard=hard, restore=restore)
    for precision in (Precision(), Precision(FP16), Precision(INT8)):
        source, made = checkpoint, precision
        if precision.kind == INT8:
            source, made = quantise.prepare(checkpoint, images, precision)
        model = to_onnx(source, opset=17, precision=made)
        found = compare.compare(model, checkpoint, images, batch_sizes=(1, 3), precision=made)
        assert found.verdict in ("equal", "bounded"), found.headline()
