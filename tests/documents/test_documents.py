"""The documents hold together: links, citations, names, sizes, and what gets installed."""

from __future__ import annotations

import ast
import email
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ltmp_export import families
from ltmp_export.checkpoint import scripts
from tests.documents import manuals
from tests.documents.manuals import FRONT, ROOT

DOCUMENTS = manuals.documents()
PACKAGE = ROOT / "ltmp_export"
LARGEST_FRONT = 10_000  # bytes
INSTALLED = {"ltmp_export": "ltmp_export", "cli": "ltmp_cli"}  # folders of the wheel


def targets(document: Path) -> Iterator[tuple[str, Path, str]]:
    """Each link into the repository: as written, its file, and what follows `#`."""
    for link in manuals.links(document.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        yield link, (document.parent / path).resolve() if path else document, anchor


def test_the_front_page_is_short() -> None:
    assert len(FRONT.read_bytes()) < LARGEST_FRONT


@pytest.mark.parametrize("document", DOCUMENTS, ids=manuals.name)
class TestDocument:
    def test_links_lead_somewhere(self, document: Path) -> None:
        for link, file, anchor in targets(document):
            assert file.is_file(), link
            assert file.is_relative_to(ROOT), link
            assert not anchor or anchor in manuals.anchors(file), link

    def test_modules_are_there(self, document: Path) -> None:
        """Those in backticks, by their path from some folder; NAME stands for any."""
        for name in re.findall(r"`([a-z_/.]+\.py)`", document.read_text(encoding="utf-8")):
            folders = (ROOT / place for place in manuals.PLACES)
            found = (path for folder in folders for path in folder.rglob(name))
            assert (ROOT / name).is_file() or any(found), name

    def test_can_be_reached_from_the_front_page(self, document: Path) -> None:
        reached, left = {FRONT}, [FRONT]
        while left:
            for _, file, _ in targets(left.pop()):
                if file.suffix == ".md" and file not in reached:
                    reached.add(file)
                    left.append(file)
        assert document in reached


def modules() -> Iterator[tuple[Path, str]]:
    """Every Python file and its text."""
    for place in manuals.PLACES:
        for path in sorted((ROOT / place).rglob("*.py")):
            yield path, path.read_text(encoding="utf-8")


def test_citations_of_the_method_lead_somewhere() -> None:
    method = (PACKAGE / "METHOD.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (§\d+) ", method, re.MULTILINE)
    steps = re.findall(r"^(\d)\. \*\*", method, re.MULTILINE)
    cited = 0
    for path, text in modules():
        if path == Path(__file__):
            continue
        for citation in re.findall(r"METHOD (§[^\n).;]*)", text):
            cited += 1
            assert set(re.findall(r"§\d+", citation)) <= set(sections), f"{path}: {citation}"
            for first, last in re.findall(r"(?:steps?|,) (\d)(?:-(\d))?", citation):
                assert {first, last or first} <= set(steps), f"{path}: {citation}"
        assert not re.search(r"\bSPEC\b", text), path
    assert cited > 40


def imported(path: Path) -> Iterator[str]:
    """Packages, or modules beside them, that a module of this package imports, types apart."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guards = (node for node in ast.walk(tree) if isinstance(node, ast.If))
    types = {
        inner
        for guard in guards
        if ast.unparse(guard.test) == "TYPE_CHECKING"
        for inner in ast.walk(guard)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in types:
            for alias in node.names:
                package, _, rest = f"{node.module}.{alias.name}".partition(".")
                if package == "ltmp_export":
                    yield rest.partition(".")[0]


def test_the_house_lists_the_packages_in_the_order_the_data_passes() -> None:
    text = (PACKAGE / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[?`([\w.]+?)(?:/|\.py)`", text, re.MULTILINE)
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= set(rows)
    below = {"errors", "progress"}
    for name in rows:
        place = PACKAGE / name
        for path in place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]:
            above = set(imported(path)) - below - {name}
            assert not above, f"{path} imports {above}, which the house lists below {name}"
        below.add(name)


def test_every_method_has_its_rows() -> None:
    """On the front page, in the room's manual, in METHOD; with the commit of the code read."""
    method = (PACKAGE / "METHOD.md").read_text(encoding="utf-8")
    for document in (FRONT, PACKAGE / "families" / "README.md"):
        rows = re.findall(r"^\|([^|]*)\|", document.read_text(encoding="utf-8"), re.MULTILINE)
        told = set(re.findall(r"`(\w+)`", " ".join(rows)))
        assert set(families.names()) <= told, document
    assert not [name for name in families.names() if f"`{name}`" not in method]
    rows = re.findall(r"^\| ([\w-]+/[\w-]+) at [0-9a-f]{7} \|", method, re.MULTILINE)
    assert {*scripts.REPOSITORIES.values()} <= set(rows)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The package as it is built."""
    folder = tmp_path_factory.mktemp("build")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in INSTALLED:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(folder / done.stdout.splitlines()[-1])


def test_what_is_linked_gets_installed(wheel: zipfile.ZipFile) -> None:
    """Apart from what only a clone has: the tests, and what GitHub reads."""
    names = set(wheel.namelist())
    for document in DOCUMENTS:
        for link, file, _ in targets(document):
            place, *rest = file.relative_to(ROOT).parts
            if place in INSTALLED:
                assert "/".join((INSTALLED[place], *rest)) in names, link
    assert all(
        "/".join(document.relative_to(ROOT).parts) in names for document in PACKAGE.rglob("*.md")
    )


def test_every_module_gets_installed(wheel: zipfile.ZipFile) -> None:
    """No list names the packages: a folder that is added is found."""
    names = set(wheel.namelist())
    for folder, installed in INSTALLED.items():
        for path in (ROOT / folder).rglob("*.py"):
            assert "/".join((installed, *path.relative_to(ROOT / folder).parts)) in names


def test_the_long_description_has_no_link_into_the_repository(wheel: zipfile.ZipFile) -> None:
    metadata = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    message = email.message_from_bytes(wheel.read(metadata))
    assert message["Description-Content-Type"] == "text/markdown"
    description = wheel.read(metadata).decode().partition("\n\n")[2]
    assert not list(manuals.links(description))
    assert "](https://arxiv.org/abs/2307.10780)" in description
    front = FRONT.read_text(encoding="utf-8")
    linked = list(manuals.links(front))
    assert linked
    assert all(f"(`{link}`)" in description for link in linked)
    assert not any(link.startswith("#") for link in linked)  # an index makes no anchors
    assert description.splitlines()[0] == front.splitlines()[0]
