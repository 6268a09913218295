"""Timing tables: fitted, written, read again, and refused where they are of something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ltmp_export.errors import InputError
from ltmp_export.plan.times import Load, TimeModel, linear_work
from ltmp_export.plan.vit import Vit
from ltmp_export.timing import fitted, tables
from ltmp_export.timing.tables import Batch, Point, TimeTable
from tests.makers import random_vits
from tests.makers.benched import ENVIRONMENT
from tests.makers.trainers import CASE

_, VIT = random_vits.build(CASE)
ATTENTION, MLP = linear_work(VIT)
TRUE = TimeModel(0.3, received=1e-7 * ATTENTION, squared=5e-5, kept=1e-7 * MLP, dense=4.0)


def points(model: TimeModel, vit: Vit = VIT, wobble: float = 0.0) -> tuple[Point, ...]:
    """What a machine would give that keeps to a model of time, off by a wobble."""
    found = []
    for number, tokens in enumerate((40, 30, 22, 12, 5)):
        given = tuple(Load(tokens, tokens**2, tokens - block) for block in range(vit.depth))
        off = 1 + wobble * (-1) ** number
        found.append(Point(f"{tokens}", given, model.milliseconds(given) * off))
    return tuple(found)


def table(**changes: Any) -> TimeTable:
    made = TimeTable(
        geometry=tables.shape(VIT),
        family="ltmp",
        precision="fp32",
        single=False,
        runtime="onnxruntime 1.32.0",
        providers=("CPUExecutionProvider",),
        threads=2,
        rounds=5,
        images="made up",
        batches=(Batch(4, 4.0, 0.01, points(TRUE)),),
        environment=ENVIRONMENT,
        versions={"ltmp": "0"},
    )
    return replace(made, **changes)


class TestFit:
    def test_finds_the_numbers(self) -> None:
        found = fitted.fit(VIT, Batch(1, 4.0, 0.0, points(TRUE)))
        assert found.fixed == pytest.approx(TRUE.fixed)
        assert found.squared == pytest.approx(TRUE.squared)
        assert (found.received, found.kept) == pytest.approx((TRUE.received, TRUE.kept))
        assert found.residual == pytest.approx(0.0, abs=1e-9)
        whole = [Load(VIT.tokens, VIT.tokens**2, VIT.tokens)] * VIT.depth
        assert found.overhead == pytest.approx(found.milliseconds(whole) - 4.0)

    def test_says_how_far_it_is_off(self) -> None:
        found = fitted.fit(VIT, Batch(1, 4.0, 0.0, points(TRUE, wobble=0.05)))
        assert 0.02 < found.residual < 0.08

    def test_says_where_it_tells_little(self) -> None:
        (line,) = fitted.far("t.json", replace(TRUE, residual=0.33))
        assert "what is predicted by t.json is up to 33% from its own times" in line
        assert not fitted.far("t.json", replace(TRUE, residual=0.05))

    def test_no_number_is_below_0(self) -> None:
        falling = replace(TRUE, squared=-2e-5, fixed=1.0)
        found = fitted.fit(VIT, Batch(1, 4.0, 0.0, points(falling)))
        assert found.squared == 0.0
        assert min(found.fixed, found.received, found.kept) > 0.0


class TestFile:
    def test_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        path = written(tmp_path, table().to_json())
        assert tables.read(path) == table()

    def test_says_what_such_files_are_exported_with(self) -> None:
        assert table().options == ""
        assert table(precision="int8", single=True).options == "--precision int8 --batch-size 1"

    def test_is_found_in_a_report_of_calibrate(self, tmp_path: Path) -> None:
        document = {"kind": "calibrate", "latency": {"table": table().to_json()}}
        assert tables.read(written(tmp_path, document)) == table()

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda d: d.update(kind="bench"), "has kind 'bench', schema_version 1; expected"),
            (lambda d: d.update(schema_version=9), "schema_version 9; expected timing, 1"),
            (lambda d: d.update(unit="seconds"), "has the unit 'seconds'; expected 'millisec"),
            (lambda d: d.pop("environment"), "damaged timing table"),
            (lambda d: d["batches"][0].update(dense=-1.0), "-1.0 is no number above 0"),
            (lambda d: d["batches"][0].update(dense=True), "True is no number above 0"),
            (lambda d: d["batches"][0]["points"][0]["loads"].pop(), "points of "),
            (lambda d: d["batches"][0].update(points=[]), "0 points, expected 3 or more"),
            (lambda d: d.update(batches=[]), "0 batch sizes"),
            (lambda d: d.update(threads="all"), "'all' is no whole number above 0"),
        ],
    )
    def test_refuses(
        self, tmp_path: Path, spoil: Callable[[dict[str, Any]], None], message: str
    ) -> None:
        document = table().to_json()
        spoil(document)
        with pytest.raises(InputError, match=message):
            tables.read(written(tmp_path, document))

    def test_refuses_what_is_no_json(self, tmp_path: Path) -> None:
        (tmp_path / "t.json").write_text("{")
        with pytest.raises(InputError, match=r"t\.json is not JSON .* 'ltmp bench MODEL\.onnx --t"):
            tables.read(tmp_path / "t.json")
        with pytest.raises(InputError, match=r"none\.json does not exist"):
            tables.read(tmp_path / "none.json")


class TestFitting:
    def test_names_and_classes_cost_no_time(self) -> None:
        other = replace(VIT, name="another", classes=VIT.classes + 1)
        tables.require_fitting(table(), Path("t.json"), other, "ltmp", "fp32")

    def test_another_model_is_refused(self) -> None:
        other = replace(VIT, depth=VIT.depth + 1)
        with pytest.raises(InputError, match=r"t\.json is of another model: its depth is \d+, thi"):
            tables.require_fitting(table(), Path("t.json"), other, "ltmp", None)

    def test_so_are_another_family_precision_and_batch(self) -> None:
        with pytest.raises(InputError, match="has times of family ltmp, and m is asked for"):
            tables.require_fitting(table(), Path("t.json"), VIT, "m", None)
        with pytest.raises(InputError, match="has times of precision fp32, and int8 is asked"):
            tables.require_fitting(table(), Path("t.json"), VIT, "ltmp", "int8")
        with pytest.raises(InputError, match="has batches of 4, not of 1"):
            table().batch(1)
        two = table(batches=(*table().batches, replace(table().batches[0], size=8)))
        with pytest.raises(InputError, match="has batches of 4, 8; say which"):
            two.batch(None)
        assert (table().batch(None).size, two.batch(8).size) == (4, 8)


def written(folder: Path, document: dict[str, Any]) -> Path:
    path = folder / "t.json"
    path.write_text(json.dumps(document))
    return path
