"""The READMEs' tables of speed are what `python -m tests.speed_table --write` makes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ltmp_export.timing.statistics import Timing
from tests import speed_table
from tests.makers import timed_models
from tests.makers.timed_models import BOTH, DYNAMIC, SINGLE, SUBJECTS, Key, Subject, Way
from tests.speed_table import BEGIN, END, FRONT, FULL_HEAD, HEAD, MANUAL, Row, Run

SAID = (
    r".+ \((AVX-512 VNNI|AVX-512|AVX VNNI|AVX2)\), threads: \d+ of \d+; onnxruntime [\d.]+, "
    r"torch [^,]+, timm [\d.]+; opset 17; milliseconds per image, best of (\d+) alternating rounds "
    r"over 16 images, or as many as a batch has\. Runs of the same images differ by ±\d+%, in the "
    r"worst row ±\d+%\."
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
    assert models == {subject.called for subject in SUBJECTS}


def test_the_command_is_said_beside_the_table() -> None:
    for readme in (FRONT, MANUAL):
        assert readme.read_text().count("python -m tests.speed_table`") == 1


def run(milliseconds: float, size: int = 1, peak: float | None = 100.0) -> Run:
    return Run(Timing("", size, size, ((milliseconds,), (1.2 * milliseconds,))), peak)


def test_rows() -> None:
    made = [
        Row("digits", 0.45, "fp32", DYNAMIC, 1, run(2), run(3), run(3)),
        Row("DeiT-S", 0.52, "fp32", SINGLE, 2, run(28.04), run(60), run(60), run(30)),
        Row("digits", 0.45, "fp32", SINGLE, 2, run(2), run(4), run(4)),
        Row("DeiT-S", 0.5, "int8", DYNAMIC, 2, run(18, 16, 99), run(40, 16), run(60, 16)),
        Row("ViT-B", 0.6, "fp32", DYNAMIC, 2, run(123.4, peak=None), run(200), run(200)),
    ]
    assert speed_table.front(made) == [
        ("digits, `--batch-size 1`", "45%", "fp32", "1", "4", "2", "50%", "2.00x"),
        ("DeiT-S", "50%", "int8", "16", "40", "18", "45%", "2.22x"),
        ("ViT-B", "60%", "fp32", "1", "200", "123", "62%", "1.62x"),
    ]
    assert speed_table.full(made)[0][:6] == ("digits", "45%", "fp32", "any batch", "1", "1")
    assert [row[6:] for row in speed_table.full(made)] == [
        ("3", "2", "67%", "67%", "100%", "±9%"),
        ("60", "28", "47%", "47%", "100%", "±9%"),
        ("4", "2", "50%", "50%", "100%", "±9%"),
        ("40", "18", "45%", "30%", "99%", "±9%"),
        ("200", "123", "62%", "62%", "–", "±9%"),
    ]
    assert speed_table.compared(made) == (
        "DeiT-S 52% fp32 `--batch-size 1` batch 1 threads 2: 0.500 before, 0.467 now; "
        "memory 1.000 before, 1.000 now"
    )
    assert re.fullmatch(SAID, speed_table.machine(3, 1, made))


def test_every_target_is_timed() -> None:
    """Speed of what the project promises something of: model, share, numbers, form, batch."""
    timed = {
        (subject.called, way.share, way.precision, form, size)
        for subject in SUBJECTS
        for way in subject.ways
        for form in way.forms
        for size in ({1} if form == SINGLE else way.sizes)
    }
    assert timed >= {
        ("digits", None, "fp32", DYNAMIC, 1),
        ("digits", None, "fp32", SINGLE, 1),
        ("DeiT-tiny", 0.53, "fp32", DYNAMIC, 1),
        ("DeiT-tiny", 0.53, "fp32", SINGLE, 1),
        ("DeiT-tiny", 0.50, "fp32", DYNAMIC, 16),
        *(("DeiT-S", 0.52, "fp32", DYNAMIC, size) for size in (1, 16, 32)),
        ("DeiT-S", 0.28, "fp32", DYNAMIC, 1),
        *(("DeiT-S", 0.50, "int8", DYNAMIC, size) for size in (1, 16)),
    }


def test_each_file_is_compared_with_the_dense_one_of_its_numbers_and_form() -> None:
    way = Way("", "ltmp", 0.5, precision="int8", forms=BOTH, sizes=(1, 4))
    found = timed_models.keys(Subject("small", "", (way,)))
    assert found == {
        Key(-1, precision, form): sizes
        for form, sizes in ((DYNAMIC, {1, 4}), (SINGLE, {1}))
        for precision in ("fp32", "int8")
    } | {Key(0, "int8", DYNAMIC): {1, 4}, Key(0, "int8", SINGLE): {1}}


def test_write_replaces_what_stands_between_the_markers(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{BEGIN}old\n{END}below\n")
    speed_table.write(readme, speed_table.document("said", ("a", "b"), [("1", "2")]))
    new = "said\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    assert readme.read_text() == f"above\n{BEGIN}{new}{END}below\n"
    (tmp_path / "bare.md").write_text("nothing\n")
    with pytest.raises(ValueError, match="lacks the markers"):
        speed_table.write(tmp_path / "bare.md", "")


def test_a_small_model_is_measured_beside_another_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both forms and numbers; the other build is this one, called as another is."""
    ways = (
        Way("", "ltmp", 0.7, forms=BOTH, sizes=(1, 2)),
        Way("m 2", "m", rate=2, precision="int8"),
    )
    kwargs = {"img_size": 64, "depth": 2, "num_classes": 10}
    subject = Subject("small", "deit_tiny_patch16_224", ways, one_thread=True, kwargs=kwargs)
    monkeypatch.setattr(timed_models, "IMAGES", 2)
    monkeypatch.setattr(speed_table, "WARMUP", 0)
    found = list(speed_table.rows(subject, 2, 1, speed_table.HOME.parent))
    assert [(row.model, row.precision, row.form, row.size) for row in found] == [
        ("small", "fp32", DYNAMIC, 1),
        ("small", "fp32", SINGLE, 1),
        ("small, m 2", "int8", DYNAMIC, 1),
        ("small", "fp32", DYNAMIC, 2),
    ]
    assert all(row.before is not None and row.before.peak for row in found)
    assert speed_table.compared(found).count(" before, ") == 2 * 4 + 1
    assert all(0 < row.share < 1 and row.left > 0 and row.memory for row in found)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--beside", "nowhere"), "no checkout of ltmp is there"),
        (("--write", "--only", "digits"), "--write replaces whole tables"),
        (("--rounds", "0"), "--rounds 0"),
    ],
)
def test_bad_use(given: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        speed_table.main(given)
    assert said in capsys.readouterr().err
