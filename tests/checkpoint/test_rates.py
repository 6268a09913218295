"""How many tokens a block takes, and what may be stated about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import pytest
import torch

from ltmp_export import check, evaluate, export, families
from ltmp_export.checkpoint import rates
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.step import Step
from ltmp_export.plan.vit import Vit
from ltmp_export.plan.work import macs, share
from ltmp_export.statements.choices import Choices
from ltmp_export.steps.merge_most.step import MergeMost
from ltmp_export.steps.prune_least.step import PruneLeast
from tests.conftest import DIGITS_LTMP
from tests.makers.commands import ltmp, refused

Digits = Callable[[str], Checkpoint]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8", (8, 8, 8, 8)),
        ("0", (0, 0, 0, 0)),
        ("8,6,4,0", (8, 6, 4, 0)),
        (" 8, 6,4 ,0", (8, 6, 4, 0)),
        ("16:0", (16, 16, 16, 16)),
        ("16:-1", (32, 21, 10, 0)),  # 32, 21.3, 10.7, 0
        ("16:1", (0, 10, 21, 32)),
        ("9:0.5", (4, 7, 10, 14)),  # int(4.5) up to 18 - 4
    ],
)
def test_parse(text: str, expected: tuple[int, ...]) -> None:
    assert rates.parse(text, 4) == expected


def test_a_trend_in_one_block() -> None:
    assert rates.parse("8:-1", 1) == (16,)


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "8,-1,8,8", "8,,8", "1.5", "8:", ":1", "8:nan", "8:inf", "8:2", "8:-2",
             "8:x", "1:1:1", "9" * 30, "9" * 5000, "8,8 8,8"]
)  # fmt: skip
def test_no_such_form(text: str) -> None:
    with pytest.raises(InputError, match=r"expected tokens per block, like 8, .* 8,8,8,8, or a"):
        rates.parse(text, 4)


@pytest.mark.parametrize("text", ["8,8", "8,8,8,8,8"])
def test_numbers_for_another_depth(text: str) -> None:
    with pytest.raises(InputError, match=r"\d numbers, but the model has 4 blocks"):
        rates.parse(text, 4)


def made(vit: Vit, name: str, *stated: int) -> tuple[tuple[Step, ...], ...]:
    return rates.plan(families.load(name), stated, vit).blocks


class TestPlan:
    """On the digits: 65 tokens, six blocks."""

    def test_no_step_takes_more_than_there_are(self, digits: Digits) -> None:
        vit = digits("m").vit
        counts = [step.count for (step,) in made(vit, "m", *[99] * 5) if is_counted(step)]
        assert counts == [32, 16, 8, 4, 2]  # of 65, 33, 17, 9, 5
        counts = [step.count for (step,) in made(vit, "p", *[20] * 5) if is_counted(step)]
        assert counts == [20, 20, 12, 6, 3]  # of 65, 45, 25, 13, 7
        assert made(vit, "m", *[99] * 7)[6] == ()  # of two tokens none is taken

    def test_two_steps_share_r(self, digits: Digits) -> None:
        """METHOD §1: pruning takes int(1 + (r - 2) i / (L - 1)), merging the rest."""
        blocks = made(digits("mp").vit, "mp", *[8] * 6)
        pairs = [(m.count, p.count) for m, p in blocks if is_counted(m) and is_counted(p)]
        assert pairs == [(7, 1), (6, 2), (5, 3), (4, 4), (3, 5), (1, 7)]

    def test_shares_are_those_of_whole_numbers(self, digits: Digits) -> None:
        """1 + 55 * 3 / 11 is 16, also where 3 / 11 is rounded."""
        vit = Vit(**vars(digits("mp").vit) | {"depth": 12, "image_size": (200, 200)})
        pruned = [steps[1] for steps in made(vit, "mp", *[57] * 12)]
        assert pruned[3] == PruneLeast(16)
        assert pruned[6] == PruneLeast(31)

    @pytest.mark.parametrize(("name", "place"), [("mp", 1), ("pm", 0)])
    def test_pruning_none_still_sorts_where_merging_takes_some(
        self, digits: Digits, name: str, place: int
    ) -> None:
        blocks = made(digits(name).vit, name, 1, 1, 1)
        assert [len(steps) for steps in blocks] == [1, 2, 2]
        assert blocks[0] == (PruneLeast(1),)
        assert blocks[2][place] == PruneLeast(0)
        assert blocks[2][1 - place] == MergeMost(1, ranked=name == "mp")

    @pytest.mark.parametrize("name", families.counted())
    def test_a_block_that_takes_none_does_nothing(self, digits: Digits, name: str) -> None:
        blocks = made(digits(name).vit, name, 8, 0, 8)
        assert blocks[1] == ()
        assert blocks[0]
        assert blocks[2]

    def test_a_distillation_token_is_not_taken(self, digits: Digits) -> None:
        vit = digits("m").vit
        two = Vit(**vars(vit) | {"prefix": 2})
        ((step,),) = made(two, "m", 99)
        assert step == MergeMost(32, prefix=2)  # of 66: (66 - 2) / 2


def is_counted(step: Step) -> TypeGuard[MergeMost | PruneLeast]:
    return isinstance(step, (MergeMost, PruneLeast))


@pytest.mark.parametrize("name", families.counted())
@pytest.mark.parametrize("target", [1.0, 0.9, 0.6, 0.45, 0.3])
def test_the_nearest_r(digits: Digits, name: str, target: float) -> None:
    vit, family = digits(name).vit, families.load(name)
    (found,) = set(rates.reaching(family, target, vit))
    shares = [share(vit, rates.plan(family, (r,) * 6, vit)) for r in range(66)]
    assert abs(shares[found] - target) == min(abs(share - target) for share in shares)


def test_share_counts_as_the_tokens_do(digits: Digits) -> None:
    checkpoint = digits("m")
    work = macs(checkpoint.vit, (57, 49, 41, 33, 25, 17))
    dense = macs(checkpoint.vit, (65,) * 6)
    assert share(checkpoint.vit, checkpoint.plan) == pytest.approx(work / dense)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (0.0, "a share above 0"),
        (1.5, "up to 1"),
        (float("nan"), "a share above 0"),
        (0.1, r"m leaves 0.2\d\d of the multiply-accumulates at the least; ask for more"),
    ],
)
def test_targets_that_cannot_be(digits: Digits, target: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rates.reaching(families.load("m"), target, digits("m").vit)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (Choices(family="m"), "family m takes a fixed number .*state it with --r 8, or --reduc"),
        (Choices(rate="8"), "state which with --family m|mp|p|pm"),
        (Choices(reduction_target=0.5), "state which with --family m|mp|p|pm"),
        (Choices(family="m", rate="8", reduction_target=0.5), "in two ways; give one"),
        (Choices(family="ltmp", rate="8"), "state which with --family"),
        (Choices(family="m", rate="8", merge_at=(1,)), "no layers of PatchMerger: drop --merge-at"),
        (Choices(family="m", rate="8", merge_scale="one"), "drop --merge-at, --merge-scale"),
        (Choices(family="patchmerger"), "holds no weights of patchmerger"),
        (Choices(family="tom", rate="8"), "no family 'tom'; choose from"),
    ],
)
def test_what_contradicts_itself(stated: Choices, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_checkpoint(DIGITS_LTMP, stated)


@pytest.mark.parametrize("prefix", families.counted())
def test_a_name_with_the_familys_prefix(
    content: dict[str, Any], write: Callable[..., Path], prefix: str
) -> None:
    """As the authors' script names its models; the name may stand in a flag, too."""
    for key in [key for key in content["state_dict"] if "masker" in key]:
        del content["state_dict"][key]
    content |= {"arch": f"{prefix}_vit_digits_patch4_32", "args": {}}
    found = load_checkpoint(write(content), Choices(rate="8"))
    assert found.plan.family == prefix
    assert found.found[-1].startswith("r 8: 60.5% of the dense multiply-accumulates, tokens")


def test_the_name_of_the_model_as_a_flag(tmp_path: Path) -> None:
    import timm

    model = timm.create_model("vit_tiny_patch16_224", depth=2)
    torch.save(model.state_dict(), tmp_path / "v.pth")
    found = load_checkpoint(tmp_path / "v.pth", Choices(model="mp_vit_tiny_patch16_224", rate="20"))
    assert (found.plan.family, found.vit.heads) == ("mp", 3)
    assert found.warnings == (
        "not in all as vit_tiny_patch16_224 (--model) has it: depth 2 (12); the weights decide",
    )


def test_stating_r_anew_takes_back_the_target() -> None:
    earlier = Choices(family="m", reduction_target=0.5)
    assert Choices(rate="8").over(earlier) == Choices(family="m", rate="8")
    assert Choices(num_heads=2).over(earlier) == Choices(
        family="m", reduction_target=0.5, num_heads=2
    )
    assert Choices.from_json(earlier.to_json()) == earlier


def test_plans_survive_json(digits: Digits) -> None:
    for name in families.names():
        plan = digits(name).plan
        plan = plan if plan.static else plan.within((9,) * 6)
        again = Plan.from_json(plan.to_json())
        assert (again.blocks, again.before) == (plan.blocks, dict(plan.before))


def test_nothing_to_take_is_a_warning() -> None:
    found = load_checkpoint(DIGITS_LTMP, Choices(family="m", rate="0"))
    assert "family m with this r reduces nothing" in found.warnings


@pytest.mark.parametrize("family", ["m", "ltmp"])
def test_a_dense_model_is_not_measured_in_place_of_a_family(
    digits_base: Path, golden: Any, tmp_path: Path, family: str
) -> None:
    images = np.repeat(golden["images"][:2], 3, axis=1)
    np.savez(tmp_path / "i.npz", images=images, labels=golden["labels"][:2])
    with pytest.raises(InputError, match=f"family {family} needs (--r 8|thresholds, of which)"):
        evaluate(digits_base, tmp_path / "i.npz", choices=Choices(family=family, num_heads=2))
    stated = Choices(family="m", rate="8", num_heads=2)
    assert evaluate(digits_base, tmp_path / "i.npz", choices=stated).tokens[0] == 57


def test_another_r_than_the_files(digits: Digits, tmp_path: Path) -> None:
    checkpoint, output = digits("m"), tmp_path / "m.onnx"
    export(checkpoint, output, check=False)
    other = Choices(family="m", rate="9", num_heads=2)
    found = check(output, checkpoint.path, samples=1, batch_sizes=[1], choices=other)
    assert found.verdict == "fail"
    assert found.reason == "block 0: the file states merge 8, the checkpoint merge 9"


@pytest.mark.parametrize(("family", "picks"), [("m", "its r"), ("evit", "its rate")])
def test_nothing_to_calibrate(digits_base: Path, family: str, picks: str) -> None:
    """A share of the work picks rates without images: the command that does is named."""
    asked = ("--num-heads", 2, "--family", family, "--reduction-target", 0.5)
    run = ltmp("calibrate", digits_base, *asked, "--images", digits_base)
    refused(run, f"ltmp export --family {family} --reduction-target 0.6 picks {picks}, without")
