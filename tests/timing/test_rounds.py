"""Rounds alternate, and who fails leaves alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from ltmp_export.errors import ExportError
from ltmp_export.files.workplace import workplace
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.timing import rounds
from ltmp_export.timing.contenders import Contender
from ltmp_export.timing.rounds import Field
from ltmp_export.timing.settings import Settings

IMAGES = 3


@pytest.fixture
def folder() -> Iterator[Path]:
    """A workplace with two models, one that adds and one that takes no more than one image."""
    with workplace() as place:
        for name, batch in (("adds", "batch"), ("single", 1)):
            g = GraphBuilder(17, {})
            x = g.input("images", TensorProto.FLOAT, [batch, 4])
            g.output(g.op("Add", x, x), "logits", TensorProto.FLOAT, [batch, 4])
            onnx.save(g.build("adds", {}), place / f"{name}.onnx")
        np.save(place / "images.npy", np.ones((IMAGES, 4), np.float32))
        yield place


def race(folder: Path, contenders: list[Contender], settings: Settings) -> tuple[Field, list[Any]]:
    shared = {"images": str(folder / "images.npy"), "threads": 1}
    with contextlib.ExitStack() as stack:
        field = Field(contenders, shared, folder, stack)
        found = rounds.run(
            field,
            np.arange(IMAGES),
            lambda contender, groups: [[] for _ in groups],
            settings,
            lambda words: None,
        )
    return field, found


def contender(folder: Path, label: str, file: str = "adds", **how: Any) -> Contender:
    return Contender(label, "onnxruntime", folder / f"{file}.onnx", **how)


def test_every_contender_runs_every_batch_in_every_round(folder: Path) -> None:
    both = [contender(folder, "a", required=True), contender(folder, "b", single=True)]
    field, found = race(folder, both, Settings(batch_sizes=(1, 2), warmup=3, iterations=4))
    assert [(t.model, t.batch_size) for t in found] == [("a", 1), ("b", 1), ("a", 2)]
    assert [np.shape(t.samples) for t in found] == [(4, 3), (4, 3), (4, 2)]
    assert field.reasons == {}
    assert field.engines.keys() == {"a", "b"}


def test_who_fails_leaves_with_a_reason(folder: Path) -> None:
    some = [
        contender(folder, "good", required=True),
        contender(folder, "missing", "none"),
        contender(folder, "fixed", "single"),
    ]
    field, found = race(folder, some, Settings(batch_sizes=(1, 2), warmup=0, iterations=2))
    assert [(t.model, t.batch_size) for t in found] == [("good", 1), ("fixed", 1), ("good", 2)]
    assert "missing does not run: " in field.reasons["missing"]
    assert "fixed does not run: " in field.reasons["fixed"]
    assert [c.label for c in field.contenders] == ["good"]


def test_who_is_required_must_not_fail(folder: Path) -> None:
    needed = [contender(folder, "needed", "single", required=True)]
    with pytest.raises(ExportError, match="needed does not run: .*invalid dimensions"):
        race(folder, needed, Settings(batch_sizes=(2,), warmup=0, iterations=1))


def test_another_one_begins_each_round() -> None:
    runners = [Contender(label, "onnxruntime", Path()) for label in "abc"]
    orders = ["".join(c.label for c in rounds.rotated(runners, number)) for number in range(4)]
    assert orders == ["abc", "bca", "cab", "abc"]
    assert rounds.rotated([], 3) == []
