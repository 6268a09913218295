"""Multi-Scale and Token Mergence against a slow oracle; what is assumed of it, METHOD §1 says."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ltmp_export import check, export, inspect, load_checkpoint
from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.families import multiscale_mergence
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.plan.vit import Vit
from ltmp_export.plan.work import dense_macs, executed_macs, executed_share
from ltmp_export.precision.formats import FP16, INT8, Precision
from ltmp_export.reference import Reference
from ltmp_export.runtimes import opsets
from ltmp_export.runtimes.session import Session
from ltmp_export.statements.choices import Choices
from ltmp_export.steps.mergence import eager
from ltmp_export.steps.mergence.step import WEIGHTINGS, Mergence
from ltmp_export.steps.tokens import Tokens
from tests.conftest import load_torch
from tests.makers import random_vits
from tests.makers.exported import Exported, numpy_weights
from tests.oracles.oracle_mergence import run_mergence
from tests.tolerances import RANDOM_EXPORTED

AT, RATE = (0, 1), 0.6
CASES = (random_vits.DEEP, random_vits.OPTIONS[7], random_vits.OPTIONS[8])
STATED = Choices(
    family="multiscale_mergence", num_heads=2, mean=(0.5,) * 3, std=(0.5,) * 3, merge_at=(1, 2, 3)
)
DEIT_S = Vit(
    "deit_small_patch16_224",
    (224, 224), (16, 16), 3, 1000, 12, 384, 1536, 6, 64, 1e-6, "gelu", "token",
)  # fmt: skip
Array = NDArray[Any]


def plan_of(vit: Vit, mean: str, rate: float = RATE, at: tuple[int, ...] = AT) -> Plan:
    placed = multiscale_mergence.from_stated(
        "a test", vit, keep_rate=rate, merge_at=at, merge_weights=mean
    )
    blocks = tuple(placed.blocks.get(block, ()) for block in range(vit.depth))
    return Plan("multiscale_mergence", blocks)


@pytest.mark.parametrize("mean", WEIGHTINGS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_and_graph_are_the_oracles(case: random_vits.Case, mean: str) -> None:
    model, vit = random_vits.build(case)
    plan, images = plan_of(vit, mean), random_vits.images(vit, case.seed, 7)
    weights = numpy_weights(model)
    found = [
        run_mergence(
            weights, image.numpy(), heads=vit.heads, keep_rate=RATE, merge_at=AT, mean=mean
        )
        for image in images
    ]
    assert all(one.margin > 1e-5 for one in found)
    expected = np.stack([one.logits for one in found])
    reference = Reference(model, plan, torch.float64)
    for image, one in zip(images, found, strict=True):
        trace = reference.run(image)
        assert np.abs(trace.logits.numpy() - one.logits).max() < 1e-9
        assert trace.counts == one.counts == plan.counts(vit.tokens, 1)
        assert sum(one.owned) == vit.patches + 1
    for opset in (16, 17, opsets.newest_opset()):
        for batch_size in (None, 1):
            exported = Exported(vit, plan, model, opset, batch_size)
            for size in (1, 3, 7) if batch_size is None else (1,):
                logits = exported.run_in_batches(images, size).logits
                assert np.abs(logits - expected).max() < RANDOM_EXPORTED


def with_coarse(state: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The weights of a ViT and of a second scale of its patches."""
    fine = state["patch_embed.proj.weight"]
    generator = torch.Generator().manual_seed(9)
    shape = (*fine.shape[:2], 2 * fine.shape[2], 2 * fine.shape[3])
    weight = torch.randn(shape, generator=generator) * scale
    bias = torch.randn(len(fine), generator=generator) * scale
    return state | {"patch_embed.coarse.weight": weight, "patch_embed.coarse.bias": bias}


def two_scales(base: Path, folder: Path, scale: float, choices: Choices) -> Checkpoint:
    torch.save(with_coarse(load_torch(base), scale), folder / "two.pth")
    return load_checkpoint(folder / "two.pth", choices)


def test_two_scales_are_the_oracles(digits_base: Path, tmp_path: Path) -> None:
    checkpoint = two_scales(digits_base, tmp_path, 0.05, replace(STATED, keep_rate=0.7))
    assert checkpoint.vit.coarse
    images = few(2).pixels
    state = numpy_weights(checkpoint.model)
    expected = [
        run_mergence(state, image, heads=2, keep_rate=0.7, merge_at=(1, 2, 3)) for image in images
    ]
    reference = Reference(checkpoint.model, checkpoint.plan, torch.float64)
    for image, one in zip(images, expected, strict=True):
        logits = reference.run(torch.from_numpy(image).double()).logits.numpy()
        assert np.abs(logits - one.logits).max() < 1e-9
    for opset in (16, opsets.newest_opset()):
        session = Session(to_onnx(checkpoint, opset=opset), threads=1)
        found = session.run(images)[0]
        assert np.abs(found - np.stack([one.logits for one in expected])).max() < 1e-4
    for precision in (Precision(), Precision(FP16)):
        model = to_onnx(checkpoint, opset=17, precision=precision)
        report = compare.compare(model, checkpoint, few(2), batch_sizes=(2,), precision=precision)
        assert report.verdict in ("equal", "bounded"), report.headline()
    own = export(checkpoint, tmp_path / "two.onnx", check=False)
    assert own.macs_share is not None
    told = inspect(tmp_path / "two.onnx")
    assert told["vit"]["coarse"] is True
    assert told["dense_gmacs"] == dense_macs(checkpoint.vit) / 1e9


def test_a_coarse_scale_of_zeros_is_the_plain_embedding(digits_base: Path, tmp_path: Path) -> None:
    dense = Choices(num_heads=2, mean=(0.5,) * 3, std=(0.5,) * 3)
    torch.save(with_coarse(load_torch(digits_base), 0.0), tmp_path / "two.pth")
    two = load_checkpoint(tmp_path / "two.pth", dense, dense=True)
    one = load_checkpoint(digits_base, dense, dense=True)
    image = torch.from_numpy(few(1).pixels[0])
    logits = [
        Reference(each.model, each.plan, torch.float64).run(image).logits for each in (one, two)
    ]
    assert torch.equal(*logits)
    assert dense_macs(two.vit) - dense_macs(one.vit) == 16 * 8 * 8 * 3 * 128


def test_a_coarse_scale_that_does_not_fit(digits_base: Path, tmp_path: Path) -> None:
    state = with_coarse(load_torch(digits_base), 0.1)
    state["patch_embed.coarse.weight"] = state["patch_embed.coarse.weight"][..., :4]
    torch.save(state, tmp_path / "two.pth")
    with pytest.raises(InputError, match=r"patch_embed.coarse.weight \(128, 3, 8, 4\), expected"):
        load_checkpoint(tmp_path / "two.pth", STATED)


def taken(step: Mergence, x: Tensor, score: list[float], owned: Tensor | None = None) -> Tokens:
    scores = {CLASS_ATTENTION: torch.tensor([torch.inf, *score], dtype=x.dtype)}
    left, _ = eager.take(step, Tokens(x, x.new_ones(len(x)), scores, owned=owned), None, {})
    return left


def test_ties_go_to_the_lower_row() -> None:
    """Of three equal scores two stay; of two equal partners the first takes the third."""
    x = torch.tensor([[9.0, 9.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    left = taken(Mergence(2), x, [0.25, 0.25, 0.25])
    assert left.x.tolist() == [[9.0, 9.0], [2.0, 0.0], [2.0, 0.0]]
    assert left.patches_owned().tolist() == [1, 2, 1]


def test_identical_patches_stay_what_they_are() -> None:
    x = torch.full((9, 4), 0.7)
    for mean in WEIGHTINGS:
        left = taken(Mergence(3, mean), x, [0.1] * 8)
        assert left.x.shape == (4, 4)
        assert (left.x - 0.7).abs().max() < 1e-6
        assert float(left.patches_owned().sum()) == 9


def test_means_by_hand() -> None:
    """Kept: the first, score 0.6; merged: one at 45 degrees of score 0.2, one opposite of 0.1."""
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    owned = torch.tensor([1.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    half = 0.5**0.5
    expected = {
        "uniform": [1 / 3, 1 / 3],
        "size": [(3 + 2 - 1) / 6, 2 / 6],
        "importance": [(0.6 + 0.2 - 0.1) / 0.9, 0.2 / 0.9],
        "similarity": [(1 + half) / (1 + half), half / (1 + half)],
    }
    for mean, row in expected.items():
        left = taken(Mergence(1, mean), x, [0.6, 0.2, 0.1], owned)
        assert left.x[1].tolist() == pytest.approx(row)
        assert left.patches_owned().tolist() == [1, 6]


def test_keeping_all_is_dense() -> None:
    placed = multiscale_mergence.from_stated(
        "a test", DEIT_S, keep_rate=1.0, merge_at=None, merge_weights=None
    )
    assert placed.blocks == {}
    assert placed.warnings == ("keep rate 1 keeps all patches",)
    assert placed.assumed == {"merge_weights": "uniform", "merging_blocks": (3, 6, 9)}


def test_multiply_accumulates_of_deit_small() -> None:
    """By hand: 137, 96 and 67 of 196 patches; the cosines and the sums count."""
    plan = plan_of(DEIT_S, "uniform", 0.7, (3, 6, 9))
    counts = plan.counts(197, 1)
    assert counts == (197,) * 3 + (138,) * 3 + (97,) * 3 + (68,) * 3
    by_hand = 196 * 16 * 16 * 3 * 384 + 1000 * 384
    for before, after in zip([197, *counts[:-1]], counts, strict=True):
        by_hand += 4 * before * 384**2 + 2 * before**2 * 384 + 8 * after * 384**2
    by_hand += 2 * 384 * (59 * 137 + 41 * 96 + 29 * 67)
    assert executed_macs(DEIT_S, plan, counts) == by_hand
    assert 1 - executed_macs(DEIT_S, plan, counts) / dense_macs(DEIT_S) == pytest.approx(
        0.34, abs=0.01
    )


@pytest.mark.parametrize("target", [0.9, 0.663, 0.5])
def test_a_target_picks_the_keep_rate(target: float) -> None:
    placed = multiscale_mergence.from_stated(
        "a test", DEIT_S, keep_rate=None, merge_at=None, merge_weights=None,
        reduction_target=target,
    )  # fmt: skip
    plan = Plan("multiscale_mergence", tuple(placed.blocks.get(b, ()) for b in range(12)))
    share = executed_share(DEIT_S, plan, [plan.counts(197, 1)])
    assert target - 0.005 < share <= target


def test_average_pooling_is_refused() -> None:
    averaging = replace(DEIT_S, pool="avg")
    with pytest.raises(
        InputError, match="classify their class token; this one pools by avg, and how"
    ):
        plan_of(averaging, "uniform")


def test_the_last_way_to_say_it_counts() -> None:
    earlier, later = Choices(keep_rate=0.7), Choices(reduction_target=0.5)
    assert later.over(earlier) == later
    assert earlier.over(later) == earlier


@pytest.fixture(scope="module")
def merging(digits_base: Path) -> Checkpoint:
    return load_checkpoint(digits_base, STATED)


def few(count: int) -> Images:
    pixels = np.random.default_rng(3).standard_normal((count, 3, 32, 32)).astype(np.float32)
    return Images(pixels, None, tuple(map(str, range(count))), "test")


def test_files_pass_the_check_in_every_precision(merging: Checkpoint) -> None:
    images = few(3)
    for precision in (Precision(), Precision(FP16), Precision(INT8)):
        source, made = merging, precision
        if precision.kind == INT8:
            source, made = quantise.prepare(merging, images, precision)
        model = to_onnx(source, opset=17, precision=made)
        found = compare.compare(model, merging, images, batch_sizes=(1, 3), precision=made)
        assert found.verdict in ("equal", "bounded"), found.headline()


def wrong_ranking(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if "block_02/ranking" in n.output)
    node.attribute.append(onnx.helper.make_attribute("largest", 0))


def wrong_partner(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if "block_02/partner" in n.output)
    node.op_type = "ArgMin"


def wrong_mean(model: onnx.ModelProto) -> None:
    node = next(
        n for n in model.graph.node if n.op_type == "Div" and n.output[0].startswith("block_02/Div")
    )
    node.op_type = "Mul"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (wrong_ranking, "class attention"),
        (wrong_partner, "is merged into another partner than the reference's: similarity"),
        (wrong_mean, "block 2"),
    ],
)
def test_wrong_graphs_are_found(
    merging: Checkpoint, change: Callable[[onnx.ModelProto], None], words: str
) -> None:
    model = to_onnx(merging, opset=17)
    change(model)
    found = compare.compare(model, merging, few(2), batch_sizes=(1,))
    assert found.verdict == "fail"
    assert "block 2" in found.headline()
    assert words in found.headline()


def test_a_file_and_what_is_told_of_it(merging: Checkpoint, tmp_path: Path) -> None:
    made = export(merging, tmp_path / "m.onnx", check=False)
    assert made.tokens == (65, 45, 32, 22, 22, 22)
    told = inspect(tmp_path / "m.onnx")
    assert (told["family"], told["mode"]) == ("multiscale_mergence", "static")
    assert told["plan"]["blocks"][1] == [{"step": "Mergence", "keep": 44, "weights": "uniform"}]
    assert check(tmp_path / "m.onnx", merging, samples=2, batch_sizes=[2]).verdict == "equal"


def test_a_file_of_our_own_says_it_all(digits_base: Path, tmp_path: Path) -> None:
    """Name and arguments; what the user states overrules them."""
    args = argparse.Namespace(keep_rate=0.5, merge_at="(1, 3)", merge_weights="size")
    content = {"state_dict": load_torch(digits_base), "arch": "multiscale_mergence_vit_small"}
    torch.save(content | {"args": args}, tmp_path / "c.pth")
    stated = replace(STATED, family=None, merge_at=None)
    plan = load_checkpoint(tmp_path / "c.pth", stated).plan
    steps = ((), (Mergence(32, "size"),), (), (Mergence(16, "size"),), (), ())
    assert plan == Plan("multiscale_mergence", steps)
    other = load_checkpoint(tmp_path / "c.pth", replace(stated, reduction_target=0.7)).plan
    assert other.blocks[1] != steps[1]
    assert other.blocks[1][0] == replace(steps[1][0], keep=other.counts(65, 1)[1] - 1)


def saved(base: Path, folder: Path, arch: str, **args: Any) -> Path:
    content = {"state_dict": load_torch(base), "arch": arch, "args": argparse.Namespace(**args)}
    torch.save(content, folder / "c.pth")
    return folder / "c.pth"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("merge_at", value) for value in (1, ["1", "2"], [1.0, 2.5], [True, 2], {"a": 1})),
        *(("keep_rate", value) for value in ("x", [0.7], True)),
        ("merge_weights", 3),
    ],
)
def test_arguments_of_another_kind(
    digits_base: Path, tmp_path: Path, name: str, value: object
) -> None:
    args = {"merge_at": [1, 2]} | {name: value}
    path = saved(digits_base, tmp_path, "multiscale_mergence_vit", **args)
    with pytest.raises(InputError, match=f"args.{name} is "):
        load_checkpoint(path, replace(STATED, family=None, merge_at=None))


def test_arguments_that_cannot_be(digits_base: Path, tmp_path: Path) -> None:
    path = saved(digits_base, tmp_path, "multiscale_mergence_vit", keep_rate=1.5, merge_at=[1, 2])
    with pytest.raises(InputError, match=r"its args, keep_rate 1.5 \(args\), .*: expected a share"):
        load_checkpoint(path, replace(STATED, family=None, merge_at=None))


def test_arguments_of_another_method_say_nothing(digits_base: Path, tmp_path: Path) -> None:
    """Nor does the target that any training was told."""
    args = {"keep_rate": 0.3, "reduction_target": 0.45}
    other = load_checkpoint(saved(digits_base, tmp_path, "vit_small", **args), STATED)
    assert other.plan.counts(65, 1)[1] == 45
    assert other.assumed["keep_rate"] == 0.7
    own = saved(digits_base, tmp_path, "multiscale_mergence_vit", **args)
    stated = replace(STATED, family=None)
    assert load_checkpoint(own, stated).plan.counts(65, 1)[1] == 1 + int(0.3 * 64)
    assert "keep_rate 0.3 (args)" in load_checkpoint(own, stated).found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"merge_at": None}, "of 6 blocks nothing tells those that merge; state them"),
        ({"merge_at": (3, 2)}, "expected rising numbers of the 6 blocks"),
        ({"merge_at": (5, 6)}, "expected rising numbers of the 6 blocks"),
        ({"keep_rate": 1.5}, "--keep-rate 1.5: expected a share above 0, at most 1"),
        ({"keep_rate": 0.1}, "--keep-rate 0.1 leaves no patch at block 2"),
        ({"keep_rate": 0.7, "reduction_target": 0.6}, "say the same in two ways; give one"),
        ({"reduction_target": 0.2}, "cannot leave so little"),
        ({"reduction_target": 2.0}, "--reduction-target 2: expected a share above 0 and up to 1"),
        ({"reduction_target": float("nan")}, "expected a share above 0 and up to 1"),
        ({"merge_weights": "mean"}, "--merge-weights mean: expected uniform, size"),
        ({"rate": "8"}, "--r is for m, mp, p, pm; drop it"),
        ({"merge_scale": "one"}, "family multiscale_mergence takes no --merge-scale; drop it"),
        (
            {"family": None},
            "holds no layers of PatchMerger: drop --merge-at.*--family .*multiscale_mergence",
        ),
        ({"family": None, "merge_at": None, "keep_rate": 0.5}, "state the family, --family .*mult"),
    ],
)
def test_what_cannot_be(digits_base: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_checkpoint(digits_base, replace(STATED, **changes))
