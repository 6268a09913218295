"""The READMEs' tables of speed are what `python -m tests.speed_table --write` makes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ltmp_export.timing.statistics import Timing
from tests import speed_table
from tests.speed_table import (
    BEGIN,
    DYNAMIC,
    END,
    FRONT,
    FULL_HEAD,
    HEAD,
    MANUAL,
    SINGLE,
    SUBJECTS,
    Key,
    Row,
    Subject,
    Way,
)  # fmt: skip

SAID = (
    r".+ \((AVX-512 VNNI|AVX-512|AVX VNNI|AVX2)\), threads: \d+ of \d+; onnxruntime [\d.]+, "
    r"torch [^,]+, timm [\d.]+; opset 17; milliseconds per image, best of (\d+) alternating rounds "
    r"over 16 images. Runs of the same images differ by ±\d+%, in the worst row by ±\d+%\."
)


@pytest.mark.parametrize(("readme", "head"), [(FRONT, HEAD), (MANUAL, FULL_HEAD)], ids=str)
def test_the_shown_table_has_the_form_of_the_command(readme: Path, head: tuple[str, ...]) -> None:
    table = readme.read_text().partition(BEGIN)[2].partition(END)[0]
    said, empty, *lines = table.splitlines()
    assert empty == ""
    assert re.fullmatch(SAID, said), said
    cells = [tuple(line.strip("| ").split(" | ")) for line in lines]
    assert cells[0] == head
    assert set(cells[1]) == {"---"}
    assert {len(row) for row in cells} == {len(head)}
    models = {row[0].split(",")[0] for row in cells[2:]}
    known = {subject.called for subject in SUBJECTS}
    assert known - {"ViT-B"} <= models <= known  # it takes as long as the others together


def test_the_command_is_said_beside_the_table() -> None:
    for readme in (FRONT, MANUAL):
        assert readme.read_text().count("python -m tests.speed_table`") == 1


def timing(milliseconds: float, size: int = 1) -> Timing:
    return Timing("", size, size, ((milliseconds,), (1.2 * milliseconds,)))


def test_rows() -> None:
    ways = [(DYNAMIC, "fp32", 60.0, 30.0), (SINGLE, "fp32", 60.0, 28.0), (DYNAMIC, "int8", 40, 18)]
    made = [
        Row("DeiT-S", 0.52, precision, form, 1, timing(own), timing(dense), timing(60.0))
        for form, precision, dense, own in ways
    ]
    tiny = Row("DeiT-tiny", 0.5, "int8", DYNAMIC, 16, *[timing(123.4, 16)] * 3)
    assert speed_table.front([*made, tiny]) == [
        ("DeiT-S", "52%", "fp32", "1", "60", "30", "50%", "2.00x"),
        ("DeiT-S", "52%", "int8", "1", "40", "18", "45%", "2.22x"),
    ]
    assert speed_table.full([*made, tiny])[1:] == [
        ("DeiT-S", "52%", "fp32", SINGLE, "1", "60", "28", "47%", "47%", "±9%"),
        ("DeiT-S", "52%", "int8", DYNAMIC, "1", "40", "18", "45%", "30%", "±9%"),
        ("DeiT-tiny", "50%", "int8", DYNAMIC, "16", "123", "123", "100%", "100%", "±9%"),
    ]
    assert re.fullmatch(SAID, speed_table.machine(3, 1, made))


def test_write_replaces_what_stands_between_the_markers(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{BEGIN}old\n{END}below\n")
    speed_table.write(readme, speed_table.document("said", ("a", "b"), [("1", "2")]))
    new = "said\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    assert readme.read_text() == f"above\n{BEGIN}{new}{END}below\n"
    (tmp_path / "bare.md").write_text("nothing\n")
    with pytest.raises(ValueError, match="lacks the markers"):
        speed_table.write(tmp_path / "bare.md", "")


def test_a_small_model_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All forms, and beside the files of another build, which here are its own."""
    kwargs = {"img_size": 64, "depth": 2, "embed_dim": 64, "num_heads": 2, "num_classes": 10}
    ways = (Way("", "ltmp", 0.7), Way("m 2", "m", rate=2))
    subject = Subject("small", "deit_tiny_patch16_224", ways, kwargs)
    monkeypatch.setattr(speed_table, "IMAGES", 2)
    monkeypatch.setattr(speed_table, "SIZES", (1, 2))
    monkeypatch.setattr(speed_table, "PRECISIONS", ("fp32",))
    (tmp_path / "then").mkdir()
    speed_table.files(subject, tmp_path / "then")
    then = speed_table.path(tmp_path / "then", subject, Key(1, "fp32", SINGLE))
    then.unlink()
    found = list(speed_table.rows(subject, 2, 1, None, tmp_path / "then"))
    assert [(row.model, row.form, row.size) for row in found] == [
        (model, form, size)
        for model in ("small", "small, m 2")
        for form, size in ((DYNAMIC, 1), (DYNAMIC, 2), (SINGLE, 1))
    ]
    assert [row.before is None for row in found] == [False] * 5 + [True]
    assert speed_table.compared(found).count(" before, ") == 5
    assert all(0 < row.share < 1 and row.left > 0 for row in found)
