"""Every step has the faces it needs, is found by its folder, and says which one is missing."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

from ltmp_export import steps
from ltmp_export.errors import InputError
from ltmp_export.plan import faces
from ltmp_export.plan.step import Step

FOLDERS = sorted(path.parent.name for path in Path(steps.__path__[0]).glob("*/__init__.py"))
KNOWN = faces.by_name()
OF_FOLDER = {faces.folder(step): step for step in KNOWN.values()}
NEEDED = ("step", "eager", "record")
WRITING = ("packed", "slots")
# What decides nothing.
CONSTANT = ("merge_matrix", "patch_merge", "pattern", "slim", "transport")
DECIDING = [folder for folder in FOLDERS if folder not in CONSTANT]


def has(folder: str, face: str) -> bool:
    return (Path(steps.__path__[0]) / folder / f"{face}.py").exists()


def test_every_folder_is_a_step() -> None:
    assert sorted(OF_FOLDER) == FOLDERS
    assert len(KNOWN) == len(FOLDERS)


def test_names_on_disk_are_unique() -> None:
    modules = [importlib.import_module(f"ltmp_export.steps.{folder}.step") for folder in FOLDERS]
    found = [
        value.on_disk
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Step)
        and value.__module__ == module.__name__
    ]
    assert len(found) == len(FOLDERS)  # one class in each
    assert len(set(found)) == len(found)
    assert set(found) == set(KNOWN)


@pytest.mark.parametrize("folder", FOLDERS)
class TestFolder:
    @pytest.mark.parametrize("face", NEEDED)
    def test_has_what_every_step_has(self, folder: str, face: str) -> None:
        module = faces.face(OF_FOLDER[folder], face)
        assert module.__name__ == f"ltmp_export.steps.{folder}.{face}"

    def test_is_written_in_some_form(self, folder: str) -> None:
        written = [face for face in WRITING if has(folder, face)]
        assert written
        assert all(callable(faces.face(OF_FOLDER[folder], face).write) for face in written)

    @pytest.mark.parametrize("face", [*WRITING, "masked"])
    def test_says_which_face_is_missing(self, folder: str, face: str) -> None:
        if has(folder, face):
            assert faces.face(OF_FOLDER[folder], face)
            return
        meaning = {
            "packed": "has no form for images of different token counts; export it static",
            "slots": "has no static form",
            "masked": "cannot be trained",
        }[face]
        name = OF_FOLDER[folder].on_disk
        wanted = f"the step {name} {meaning}: it has no face '{face}'"
        with pytest.raises(InputError, match=f"^{re.escape(wanted)}$"):
            faces.face(OF_FOLDER[folder], face)

    def test_is_a_dataclass_of_plain_numbers(self, folder: str) -> None:
        step = OF_FOLDER[folder]
        assert dataclasses.is_dataclass(step)
        assert {part.type for part in dataclasses.fields(step)} <= {"int", "float", "bool", "str"}
        assert step.action

    def test_knows_its_tensors(self, folder: str) -> None:
        recorded = faces.face(OF_FOLDER[folder], "record")
        assert all(re.fullmatch("[a-z_]+", name) for name in recorded.TENSORS)
        assert bool(recorded.TENSORS) == (folder in DECIDING)


@pytest.mark.parametrize("folder", DECIDING)
def test_a_record_can_be_read(folder: str) -> None:
    recorded = faces.face(OF_FOLDER[folder], "record")
    assert callable(recorded.read)
    for resized in (False, True):
        assert re.fullmatch("[a-z_]+", recorded.score_name(OF_FOLDER[folder], resized))
    assert all(recorded.WORDS)


def test_a_face_that_nobody_has_a_word_for() -> None:
    step = OF_FOLDER["merge"]
    with pytest.raises(InputError, match=r"^the step Merge is not whole: it has no face 'other'$"):
        faces.face(step, "other")


def test_a_module_missing_inside_of_a_face_is_no_missing_face(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is wrong then is the installation."""

    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named 'other' in {name}", name="other")

    faces.loaded.cache_clear()
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match="'other'"):
        faces.face(OF_FOLDER["merge"], "slots")
