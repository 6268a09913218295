"""A failing image saved in a folder, and replayed."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from ltmp_export import check, export, replay
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.errors import InputError
from ltmp_export.model_file.model import to_onnx
from tests.conftest import DIGITS_LTMP
from tests.makers.mutations import MUTATIONS

Digits = Callable[[str], Checkpoint]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the rows of one matrix exchanged, in block 3, and what a check saved of it."""
    checkpoint, folder = load_checkpoint(DIGITS_LTMP), tmp_path_factory.mktemp("made")
    path = folder / "wrong.onnx"
    onnx.save(MUTATIONS["rows of mlp.fc1 exchanged"].mutate(checkpoint, 3), path)
    repro = folder / "repro"
    report = check(path, DIGITS_LTMP, samples=5, batch_sizes=(3,), save_repro=repro)
    assert report.verdict == "fail"
    assert json.loads((repro / "repro.json").read_text())["model"] == str(path)
    return folder


@pytest.fixture
def wrong(made: Path, tmp_path: Path) -> Path:
    """That model in a test's own folder."""
    return Path(shutil.copy(made / "wrong.onnx", tmp_path))


@pytest.fixture
def saved(made: Path, tmp_path: Path, wrong: Path) -> Path:
    """What was saved, as if the check had been of the test's own model."""
    folder = tmp_path / "repro"
    shutil.copytree(made / "repro", folder)
    document = json.loads((folder / "repro.json").read_text())
    (folder / "repro.json").write_text(json.dumps(document | {"model": str(wrong)}))
    return folder


def test_what_is_saved(saved: Path) -> None:
    assert sorted(p.name for p in saved.iterdir()) == [
        "decisions.npz", "images.npz", "repro.json",
    ]  # fmt: skip
    document = json.loads((saved / "repro.json").read_text())
    assert document["schema_version"] == 1
    assert (document["image"], document["batch_size"], document["row"]) == ("digit 0 (a 2)", 1, 0)
    assert (document["verdict"], document["where"]) == ("fail", "block 3")
    assert document["reason"].startswith("block 3: with the same decisions the vectors")
    with np.load(saved / "images.npz") as images:
        assert images["images"].shape == (1, 3, 32, 32)
    with np.load(saved / "decisions.npz") as decisions:
        for side in ("file", "reference"):
            kept = decisions[f"{side}/block_05/kept"]
            assert kept.dtype == bool
            assert decisions[f"{side}/block_05/importance"].shape == kept.shape
            assert decisions[f"{side}/block_02/merged"].shape == (
                decisions[f"{side}/block_02/partner"].shape
            )
        assert kept.sum() == document["counts"][5]


def test_replay_finds_the_same(saved: Path) -> None:
    found = replay(saved)
    assert found.verdict == "fail"
    assert found.comparisons[0].where == "block 3"
    assert found.warnings[0].startswith("saved as: fail at row 0: block 3")
    assert found.images == f"repro {saved}"


def test_replay_of_a_mended_file(saved: Path, tmp_path: Path) -> None:
    export(DIGITS_LTMP, tmp_path / "mended.onnx", check=False)
    found = replay(saved, tmp_path / "mended.onnx")
    assert found.verdict == "equal"
    assert any("mended.onnx is another file than" in text for text in found.warnings)


def test_the_whole_batch_is_saved_where_only_a_batch_fails(tmp_path: Path) -> None:
    """The rows of a batch in reverse order: an image alone is right."""
    from tests.backbones.test_mutations import exchanged

    model = exchanged(to_onnx(load_checkpoint(DIGITS_LTMP), opset=17), "images")
    onnx.save(model, tmp_path / "wrong.onnx")
    folder = tmp_path / "repro"
    check(tmp_path / "wrong.onnx", DIGITS_LTMP, samples=6, batch_sizes=(4,), save_repro=folder)
    document = json.loads((folder / "repro.json").read_text())
    assert (document["batch_size"], len(document["batch"])) == (4, 4)
    found = replay(folder)
    assert found.verdict == "fail"
    assert {c.batch_size for c in found.of("fail")} == {4}


def test_thresholds_only_is_replayed_with_its_base(
    tmp_path: Path, digits: Digits, digits_base: Path
) -> None:
    checkpoint = digits("ltm")
    path = tmp_path / "wrong.onnx"
    onnx.save(MUTATIONS["mlp.fc2 times 1.01"].mutate(checkpoint, 1), path)
    check(path, checkpoint, samples=1, batch_sizes=(1,), save_repro=tmp_path / "repro")
    assert replay(tmp_path / "repro").comparisons[0].where == "block 1"


def test_nothing_is_saved_where_nothing_fails(tmp_path: Path) -> None:
    export(DIGITS_LTMP, tmp_path / "model.onnx", check=False)
    check(tmp_path / "model.onnx", DIGITS_LTMP, samples=2, save_repro=tmp_path / "repro")
    assert not (tmp_path / "repro").exists()


def test_an_empty_folder_is_filled_another_refused(tmp_path: Path, wrong: Path) -> None:
    folder = tmp_path / "repro"
    folder.mkdir()
    check(wrong, DIGITS_LTMP, samples=1, batch_sizes=(1,), save_repro=folder)
    assert (folder / "repro.json").exists()
    with pytest.raises(InputError, match="is not empty; choose another folder"):
        check(wrong, DIGITS_LTMP, samples=1, batch_sizes=(1,), save_repro=folder)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no repro.json; expected a folder of"):
        replay(tmp_path)


def npz(images: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, images=images)
    return buffer.getvalue()


DAMAGE: dict[str, tuple[str, bytes | None, str]] = {
    "no object": ("repro.json", b"[]", "save it again"),
    "cut": ("repro.json", b"{", "save it again"),
    "incomplete": ("repro.json", b'{"schema_version": 1}', "save it again"),
    "of another version": ("repro.json", b'{"schema_version": 7}', "another version"),
    "nested": ("repro.json", b"[" * 200_000, "save it again"),
    "no archive": ("images.npz", b"PK", "not a folder of pictures or a readable .npz"),
    "no images": ("images.npz", None, "does not exist"),
    "empty images": ("images.npz", b"", "is empty"),
    "small images": ("images.npz", npz(np.zeros((1, 3, 16, 16), np.float32)), "expected"),
    "too many": ("images.npz", npz(np.zeros((2, 3, 32, 32), np.float32)), "expected 1"),
    "NaN": ("images.npz", npz(np.full((1, 3, 32, 32), np.nan, np.float32)), "NaN"),
    "complex": ("images.npz", npz(np.zeros((1, 3, 32, 32), np.complex64)), "expected"),
}


@pytest.mark.parametrize(("file", "content", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_folder(saved: Path, file: str, content: bytes | None, message: str) -> None:
    (saved / file).unlink()
    if content is not None:
        (saved / file).write_bytes(content)
    with pytest.raises(InputError, match=message):
        replay(saved)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("choices", {"num_heads": "abc"}),
        ("choices", {"model": 3}),
        ("choices", {"image_size": "x"}),
        ("choices", {"nonsense": 1}),
        ("choices", []),
        ("model", "a\0b"),
        ("checkpoint", 5),
        ("base_checkpoint", 5),
        ("batch", 5),
    ],
)
def test_a_changed_document(saved: Path, key: str, value: object) -> None:
    document = json.loads((saved / "repro.json").read_text())
    (saved / "repro.json").write_text(json.dumps(document | {key: value}))
    with pytest.raises(InputError, match="save it again"):
        replay(saved)


def test_a_checkpoint_that_moved_is_asked_for(saved: Path, wrong: Path) -> None:
    wrong.rename(wrong.with_name("elsewhere.onnx"))
    with pytest.raises(InputError, match=r"wrong.onnx does not exist; expected an ONNX model"):
        replay(saved)
    assert replay(saved, wrong.with_name("elsewhere.onnx")).verdict == "fail"
