"""What of an int8 model is protected where images decide: what its decisions need, and no more."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from cli import parsing
from ltmp_export import InputError, export
from ltmp_export.calibration import protection, quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images.inputs import Images, embedded_digits
from ltmp_export.model_file.model import read_exported
from ltmp_export.plan.plan import dense_plan
from ltmp_export.precision.formats import DYNAMIC, INT8, SIMILARITY, Precision
from ltmp_export.steps.prune.step import Prune
from ltmp_export.steps.tokens import Decision
from tests.makers.lower_precision import kinds

PROJ, FC1, FC2 = (f"blocks.0.{leaf}" for leaf in ("attn.proj", "mlp.fc1", "mlp.fc2"))
AUTO = Precision(INT8, auto=True)
Digits = Callable[[str], Checkpoint]


@pytest.fixture(scope="module")
def images() -> Images:
    return embedded_digits().select(12)


def fine(precision: Precision) -> set[str]:
    return {path for path, given in precision.layers.items() if given.terms > 1}


class TestWhatIsProtected:
    def test_what_changes_decisions_and_nothing_else(self, digits: Digits, images: Images) -> None:
        """A layer of zeros gives the same whatever is made of its inputs."""
        model = copy.deepcopy(digits("ltmp").model)
        torch.nn.init.zeros_(model.get_parameter(f"{PROJ}.weight"))
        _, precision = quantise.prepare(replace(digits("ltmp"), model=model), images, AUTO)
        assert precision.effects[PROJ] == 0
        assert min(precision.effects[name] for name in (SIMILARITY, FC1, FC2)) > protection.ROOM
        assert (fine(precision), precision.protected) == ({FC1, FC2, "head"}, True)

    def test_no_similarity_where_tokens_are_only_pruned(
        self, digits: Digits, images: Images
    ) -> None:
        plan = digits("ltmp").plan
        blocks = tuple(tuple(s for s in b if isinstance(s, Prune)) for b in plan.blocks)
        pruning = replace(digits("ltmp"), plan=replace(plan, blocks=blocks))
        _, precision = quantise.prepare(pruning, images.select(4), AUTO)
        assert precision.effects.keys() == {PROJ, FC1, FC2}
        assert not precision.protected

    @pytest.mark.parametrize("scales", ["static", DYNAMIC])
    def test_nothing_where_nothing_is_decided(
        self, digits: Digits, images: Images, scales: str
    ) -> None:
        """What is left out is rounded as in a file that protects nothing."""
        dense = replace(digits("ltmp"), plan=dense_plan(6))
        few = images.select(2)
        _, precision = quantise.prepare(dense, few, replace(AUTO, scales=scales))
        _, bare = quantise.prepare(dense, few, Precision(INT8, protected=False, scales=scales))
        assert precision.effects == {PROJ: 0, FC1: 0, FC2: 0}
        assert not precision.protected
        assert {**precision.layers, "head": None} == {**bare.layers, "head": None}
        assert fine(precision) == {"head"}
        assert precision.unprotected == (PROJ, FC1, FC2)
        assert f"{PROJ}, {FC1}, {FC2} left out" in precision.describe()


def test_the_file_is_checked_and_tells_what_was_measured(digits: Digits, tmp_path: Path) -> None:
    report = export(digits("ltmp"), tmp_path / "auto.onnx", precision=AUTO, calibration_samples=3)
    assert report.check is not None
    assert report.check.verdict == "bounded"
    stated = read_exported(report.output).precision
    assert stated == report.precision
    assert stated.effects.keys() == {SIMILARITY, PROJ, FC1, FC2}
    assert "decisions protected where measured to matter" in stated.describe()
    products = kinds(onnx.load(report.output))["MatMulInteger"]
    assert products == len(stated.layers) + len(fine(stated))


@pytest.mark.parametrize(
    ("asked", "before", "wanted"),
    [(None, None, "all"), ("auto", None, "auto"), (None, False, "none"), ("none", False, "none"),
     (None, True, "all"), ("all", True, "all")],
)  # fmt: skip
def test_the_older_switch(asked: str | None, before: bool | None, wanted: str) -> None:
    assert parsing.protection(asked, before) == wanted


@pytest.mark.parametrize(
    ("asked", "before"), [("auto", False), ("auto", True), ("none", True), ("all", False)]
)
def test_the_older_switch_against_the_newer(asked: str, before: bool) -> None:
    with pytest.raises(InputError, match=f"and --protect {asked} another; give one"):
        parsing.protection(asked, before)


class TestCrossing:
    """Scores 0.01 apart around the threshold 0.5, all moved by the same share of themselves."""

    SCORES = torch.from_numpy(np.arange(0.105, 1, 0.01))

    def decision(self, scores: torch.Tensor) -> Decision:
        return Decision(Prune(0.5), 0.5, scores, scores > 0.5)

    @pytest.mark.parametrize("by", [0.0, 0.02, 0.05])
    def test_as_many_as_the_error_reaches(self, by: float) -> None:
        exact, other = self.decision(self.SCORES), self.decision(self.SCORES * (1 + by))
        assert protection.crossing([(exact, other)]) == pytest.approx(by * 0.5 / 0.01, rel=0.15)

    def test_protected_scores_do_not_count(self) -> None:
        exact = self.decision(torch.tensor([torch.inf, 0.4, 0.6]))
        assert protection.crossing([(exact, exact)]) == 0
        assert protection.crossing([(self.decision(torch.tensor([torch.inf])),) * 2]) == 0
