"""What runs where: the manual's table is the data file's, and nothing in it is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ltmp_export.runtimes import matrix
from ltmp_export.runtimes.matrix import Cell, Row
from tests import runtime_matrix
from tests.makers import matrix_cells
from tests.runtime_matrix import BATCHES, BEGIN, END, FILES, LIMIT, MANUAL, NODE, OPSET, PRESENT


def test_the_table_is_that_of_the_data() -> None:
    shown = MANUAL.read_text().partition(BEGIN)[2].partition(END)[0]
    assert shown == runtime_matrix.table(matrix.read())


def test_the_data_is_whole_and_nothing_is_wrong() -> None:
    found = matrix.read()
    assert (found.opset, found.batches) == (OPSET, BATCHES)
    assert found.files == {name: file.described for name, file in FILES.items()}
    assert {row.name for row in found.rows} <= set(PRESENT)
    for row in found.rows:
        assert row.version
        assert row.cells.keys() == FILES.keys()
        for cell in row.cells.values():
            assert cell.verdict != matrix.WRONG, (row.name, cell)
            assert (cell.verdict == matrix.RIGHT) == (cell.largest is not None)


def test_every_runtime_can_be_run() -> None:
    assert {*matrix_cells.OPENED, *NODE} == set(PRESENT)


def test_cells_in_a_table() -> None:
    assert Cell("right", 3.2e-6).text() == "3e-6"
    assert Cell("right", 0.0).text() == "the same"
    assert Cell("right", 2e-3, "mnn").text() == "2e-3 (`--for mnn`)"
    assert Cell("right", 2e-3, "mnn", "1 of 2").text() == "2e-3 (`--for mnn`), 1 of 2"
    assert Cell("refused", said="`why`").text() == "`why`"
    assert Cell("wrong", 0.4, said="so").text() == "**wrong** by 4e-1: so"
    assert Cell("not run").text() == "not run"
    cells = (Cell("right", 2e-3, "mnn"), Cell("right", 0.0), Cell("refused"), Cell("late"))
    assert [cell.short() for cell in cells] == ["2e-3*", "the same", "no", "late"]
    with pytest.raises(ValueError, match="verdict 'good'"):
        Cell("good")


def test_it_is_written_as_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New rows stand in the place of the old ones, the others stay."""
    monkeypatch.setattr(matrix, "PATH", tmp_path / "runtimes.json")
    first = runtime_matrix.joined([Row("MNN", "1", {"dynamic": Cell("refused")})])
    matrix.write(first, matrix.PATH)
    assert matrix.read(matrix.PATH) == first
    old, new = first.rows[0], Row("tract", "2", {})
    monkeypatch.setattr(matrix, "read", lambda: first)
    other = {"single": Cell("late")}
    joined = runtime_matrix.joined([new, replace(old, version="3", cells=other)])
    assert [(row.name, row.version) for row in joined.rows] == [("tract", "2"), ("MNN", "3")]
    assert joined.rows[1].cells == other
    assert runtime_matrix.joined([replace(old, cells=other)]).rows[0].cells == {
        **old.cells,
        **other,
    }


def test_a_cell_runs_apart(tmp_path: Path) -> None:
    """In onnxruntime as it is; what is no model is told, not raised."""
    model, fed = tmp_path / "m.onnx", tmp_path / "fed.npz"
    model.write_bytes(_doubling())
    np.savez(fed, images=np.ones((14, 1), np.float32), digest=np.zeros(32, np.uint8))
    matrix_cells.main("onnxruntime", str(model), str(fed), str(tmp_path / "out"))
    told = json.loads((tmp_path / "out" / matrix_cells.TOLD).read_text())
    assert told["refused"] == {}
    assert told["version"]
    assert np.load(tmp_path / "out/batch_7/1/y.npy").tolist() == [[2.0]] * 7
    assert len(list((tmp_path / "out").glob("batch_1/*/y.npy"))) == 14


def _doubling() -> bytes:
    from onnx import TensorProto

    from ltmp_export.graph.builder import GraphBuilder

    g = GraphBuilder(17, {})
    x = g.input("images", TensorProto.FLOAT, ("batch", 1))
    g.output(g.op("Add", x, x), "y", TensorProto.FLOAT, ("batch", 1))
    content: bytes = g.build("doubling", {}).SerializeToString()
    return content


def test_why_a_file_is_refused_is_few_words(tmp_path: Path) -> None:
    long = {"7": "RuntimeError: no `Foo` | in\n/tmp/ltmp-x/m.onnx " + "very " * 40}
    told = runtime_matrix.told_briefly(long, tmp_path / "none")
    assert told.startswith("`no 'Foo' / in … very very")
    assert len(told) < 100
    tract = {"7": 'RuntimeError: Translating node #1 "a/b:node" Foo ToTyped Caused by: why'}
    assert runtime_matrix.told_briefly(tract, tmp_path) == "`Foo: why`"
    (tmp_path / "batch_7").mkdir()
    assert runtime_matrix.told_briefly({"1": "ValueError: x"}, tmp_path) == "batch 1: `x`"


def test_a_run_is_ended_when_its_time_is_over(tmp_path: Path) -> None:
    assert runtime_matrix._run(["sleep", "60"], 1, tmp_path) == ""
    assert runtime_matrix._run(["true"], LIMIT, tmp_path) is None
    assert runtime_matrix._run(["sh", "-c", "echo why; exit 3"], LIMIT, tmp_path) == "why"
    assert runtime_matrix._run(["sh", "-c", "kill -9 $$"], LIMIT, tmp_path) == "died of signal 9"
