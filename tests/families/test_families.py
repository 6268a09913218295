"""The contract of every file in `ltmp_export/families`."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType

import pytest

from ltmp_export import families
from ltmp_export.checkpoint.contents import KINDS
from ltmp_export.plan import faces
from ltmp_export.plan.plan import Plan
from tests.makers import examples
from tests.oracles import oracle

NAMES = families.names()
LEARNED, COUNTED = families.learned(), families.counted()
VALUES = {"merge": 0.625, "prune": 0.125}
ORDERS = oracle._STEPS | {"m": "merge", "p": "prune", "mp": "merge prune", "pm": "prune merge"}


def module(name: str) -> ModuleType:
    return importlib.import_module(f"ltmp_export.families.{name}")


def test_every_file_is_a_family() -> None:
    folder = Path(families.__path__[0])
    files = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    assert list(NAMES) == files
    assert {*LEARNED, *COUNTED} >= ORDERS.keys() - {"dense"}


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=f"no family 'tome'; there are {', '.join(NAMES)}"):
        families.load("tome")


def test_owner_of_weights() -> None:
    found = families.owner(["blocks.0.norm1.weight", "cluster_layers.0.queries"])
    assert found is not None
    assert found.name == "patchmerger"
    assert families.owner(["blocks.0.norm1.weight", "cluster_layers.x.queries"]) is None


@pytest.mark.parametrize("name", NAMES)
class TestFile:
    def test_needs_one_kind_of_thing(self, name: str) -> None:
        """Masks of one's own can be there, or start from what is stated."""
        words = {"START", "COUNTS", "WEIGHTS", "ARGS", "from_stated"}
        found = {word for word in words if hasattr(module(name), word)}
        assert len(found) == 1 or found == {"WEIGHTS", "from_stated"}

    def test_tests_have_an_example_where_thresholds_do_not_tell_all(self, name: str) -> None:
        assert (name in examples.EXAMPLES) != (name in (*LEARNED, *COUNTED))

    def test_summary_is_one_sentence(self, name: str) -> None:
        summary = (module(name).__doc__ or "").splitlines()[0]
        assert families.load(name).name == name
        assert summary.endswith(".")
        assert 10 < len(summary) < 100

    def test_source_is_named(self, name: str) -> None:
        docstring = module(name).__doc__ or ""
        assert "arXiv" in docstring or "METHOD" in docstring

    def test_knows_nothing_but_steps(self, name: str) -> None:
        tree = ast.parse(inspect.getsource(module(name)))
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        folders = [f"ltmp_export.steps.{faces.folder(step)}" for step in faces.by_name().values()]
        allowed = {*folders, *(f"{folder}.step" for folder in folders), "ltmp_export.errors"}
        allowed |= {"__future__", "collections.abc", "dataclasses", "typing"}
        ground = {name for name in imported if f"{name}.".startswith("ltmp_export.plan.")}
        assert imported <= allowed | ground
        assert not any(isinstance(node, ast.Import) for node in ast.walk(tree))


@pytest.mark.parametrize("name", COUNTED)
class TestCounted:
    def test_block_steps_takes_the_counts_by_name(self, name: str) -> None:
        parameters = inspect.signature(module(name).block_steps).parameters
        assert tuple(parameters) == module(name).COUNTS
        assert set(parameters) <= set(KINDS)

    def test_steps_come_in_the_order_of_the_method(self, name: str) -> None:
        assert " ".join(families.load(name).order()) == ORDERS[name]

    def test_block_steps_gives_a_step_for_each_count(self, name: str) -> None:
        given = {kind: 3 + place for place, kind in enumerate(module(name).COUNTS)}
        steps = module(name).block_steps(**given)
        assert {step.action: step.number for step in steps} == given


@pytest.mark.parametrize("name", LEARNED)
class TestLearned:
    def test_scalars(self, name: str) -> None:
        scalars = tuple(module(name).START)
        assert scalars
        assert families.load(name).scalars == scalars
        assert set(scalars) <= set(KINDS)
        # a checkpoint's kinds are compared in this order
        assert scalars == tuple(kind for kind in KINDS if kind in scalars)

    def test_block_steps_takes_the_scalars_by_name(self, name: str) -> None:
        parameters = inspect.signature(module(name).block_steps).parameters
        assert tuple(parameters) == tuple(module(name).START)

    def test_block_steps_gives_a_step_for_each_scalar(self, name: str) -> None:
        given = {kind: VALUES[kind] for kind in module(name).START}
        steps = module(name).block_steps(**given)
        assert isinstance(steps, tuple)
        assert {step.action: step.learned for step in steps} == given
        assert len(steps) == len(given)

    def test_steps_come_in_the_order_of_the_method(self, name: str) -> None:
        assert " ".join(families.load(name).order()) == ORDERS[name]

    def test_starts_where_the_paper_does(self, name: str) -> None:
        """METHOD §1."""
        merge = 0.9 if name == "ltmp" else 1.0
        wanted = {"merge": merge, "prune": 0.0}
        assert {kind: wanted[kind] for kind in module(name).START} == module(name).START

    def test_freeze(self, name: str) -> None:
        family = families.load(name)
        thresholds = {kind: [VALUES[kind] / (i + 1) for i in range(4)] for kind in family.scalars}
        plan = family.freeze(thresholds)
        assert isinstance(plan, Plan)
        assert plan.family == name
        assert len(plan.blocks) == 4
        assert all(len(steps) == len(family.scalars) for steps in plan.blocks)
        assert plan.thresholds() == thresholds

    def test_freeze_ignores_kinds_the_family_does_not_have(self, name: str) -> None:
        family = families.load(name)
        plan = family.freeze({"merge": [0.5, 0.25], "prune": [0.125, 0.0]})
        assert set(plan.thresholds()) == set(family.scalars)

    def test_freeze_needs_every_kind(self, name: str) -> None:
        with pytest.raises(KeyError, match=r"merge|prune"):
            families.load(name).freeze({})

    def test_freeze_needs_as_many_of_each_kind(self, name: str) -> None:
        family = families.load(name)
        thresholds = {kind: [0.5] * (i + 2) for i, kind in enumerate(family.scalars)}
        if len(family.scalars) == 1:
            assert len(family.freeze(thresholds).blocks) == 2
            return
        with pytest.raises(ValueError, match="zip"):
            family.freeze(thresholds)
