"""The walls of the house, on the syntax tree: who may know whom (`ltmp_export/README.md`)."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import ltmp_export
from ltmp_export.plan import faces

ROOT = Path(ltmp_export.__path__[0])
LONGEST_MODULE, LONGEST_FUNCTION, MOST_AT_THE_TOP = 300, 50, 8
TESTS = Path(__file__).parent
TEST_MODULES_BELOW = 400
NO_PACKAGE = {
    "makers",
    "oracles",
    "fixtures",
    "browser",
    "documents",
}  # folders of tests for all the others


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Every module by its dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text())
    return found


def imports(tree: ast.Module) -> Iterator[str]:
    """What a module imports, also inside of functions, `from` names with their module in front."""
    typing_only = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for part in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(name: str) -> str | None:
    """The module of this package that an imported name is, or is from."""
    while name.startswith("ltmp_export"):
        if name in modules():
            return name
        name = name.rpartition(".")[0]
    return None


@functools.cache
def imported(module: str) -> frozenset[str]:
    """Modules of this package that a module imports, packages of others by first name."""
    return frozenset(own(name) or name.partition(".")[0] for name in imports(modules()[module]))


@functools.cache
def reached(module: str) -> frozenset[str]:
    """All that a module imports, directly and not, as `imported`."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        for target in imported(waiting.pop()) - seen:
            seen.add(target)
            waiting += [target] if target in modules() else []
    return frozenset(seen)


def of(*patterns: str) -> list[str]:
    """Modules by their place: a package, or a leaf name behind `*.`."""
    found = []
    for pattern in patterns:
        leaf = pattern.removeprefix("*.")
        found += [
            name
            for name in modules()
            if (pattern.startswith("*.") and name.endswith(f".{leaf}"))
            or name == f"ltmp_export.{pattern}"
            or name.startswith(f"ltmp_export.{pattern}.")
        ]
    assert found
    return found


@pytest.mark.parametrize("module", of("reference", "*.eager", "steps.tokens", "steps.matching"))
def test_what_pytorch_computes_knows_nothing_of_files(module: str) -> None:
    beyond = reached(module) & {"onnx", "onnxruntime", *of("graph", "model_file", "runtimes")}
    assert not beyond


@pytest.mark.parametrize(
    "module",
    [
        *of("graph", "*.packed", "*.single", "*.slots", "*.lower", "steps.lowering", "drawing"),
        *of("steps.recorded", "steps.decided"),
        *(name for name in of("*.record") if ".steps." in name),
    ],
)
def test_what_files_compute_knows_nothing_of_pytorch(module: str) -> None:
    assert not reached(module) & {"torch", "timm", "ltmp_export.reference"}


@pytest.mark.parametrize("module", of("plan", "families", "*.step"))
def test_the_ground_is_plain_numbers(module: str) -> None:
    assert not reached(module) & {"torch", "timm", "onnx", "onnxruntime", "numpy"}


@pytest.mark.parametrize("module", of("runtimes"))
def test_runtimes_know_nothing_of_files_on_disk_or_of_what_uses_them(module: str) -> None:
    assert not reached(module) & {*of("model_file", "parity", "timing", "checkpoint")}


BRIDGES = (
    "precision.record",
    "training.record",
    "calibration.budgets",
    "calibration.halves",
    "parity",
)
ABOVE = ("timing", "commands", "reports")


@pytest.mark.parametrize("module", sorted(modules().keys() - {*of(*BRIDGES, *ABOVE)}))
def test_only_bridges_and_what_stands_above_them_see_both_towers(module: str) -> None:
    assert not ({"torch", "timm"} & reached(module) and {"onnx", "onnxruntime"} & reached(module))


def package(module: str) -> str:
    """The package directly below the top one, or the module where there is none."""
    return ".".join(module.split(".")[:2])


def test_packages_import_each_other_in_one_direction() -> None:
    arrows: dict[str, set[str]] = defaultdict(set)
    for module, tree in modules().items():
        if module == "ltmp_export":
            continue
        for target in filter(None, map(own, imports(tree))):
            if target != "ltmp_export" and package(target) != package(module):
                arrows[package(module)].add(package(target))
    left = set(arrows) | set().union(*arrows.values())
    while free := {name for name in left if not arrows[name] & left}:
        left -= free
    assert not left, f"a circle among {sorted(left)}"


@pytest.mark.parametrize("module", of("graph", "parity", "timing", "model_file", "runtimes"))
def test_nobody_asks_which_step_it_is(module: str) -> None:
    strings = {n.value for n in ast.walk(modules()[module]) if isinstance(n, ast.Constant)}
    assert not strings & {"merge", "prune"}


@pytest.mark.parametrize("step", faces.by_name().values(), ids=faces.by_name())
def test_every_step_has_its_faces(step: type) -> None:
    folder = ROOT / "steps" / faces.folder(step)
    assert {"step.py", "eager.py", "record.py"} <= {path.name for path in folder.iterdir()}
    assert (folder / "packed.py").exists() or (folder / "slots.py").exists()
    assert (folder / "packed.py").exists() == (folder / "single.py").exists()


def test_packages_are_a_docstring() -> None:
    """Else importing a name would import more than it needs."""
    allowed = {"ltmp_export", "ltmp_export.families", "ltmp_export.reports"}
    for path in ROOT.rglob("__init__.py"):
        name = ".".join(path.parent.relative_to(ROOT.parent).parts)
        assert name in allowed or len(modules()[name].body) == 1, name


def test_there_is_no_flat_corridor() -> None:
    assert len(list(ROOT.glob("*.py"))) <= MOST_AT_THE_TOP


LIGHT = (
    "commands.inspect",
    "commands.bench",
    "commands.show",
    "drawing.pages",
    "reports",
    "families",
)


@pytest.mark.parametrize("code", LIGHT)
def test_no_pytorch_is_imported_for(code: str) -> None:
    program = (
        f"import sys, importlib; importlib.import_module('ltmp_export.{code}');"
        "print(sorted({'torch', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_modules_are_short() -> None:
    found = {}
    for path in ROOT.rglob("*.py"):
        lines = len(path.read_text().splitlines())
        if lines > LONGEST_MODULE:
            found[str(path.relative_to(ROOT))] = lines
    assert not found


def test_functions_are_short() -> None:
    """Their statements, without the signature and the docstring, which are as long as they are."""
    found = {}
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
                if lines > LONGEST_FUNCTION:
                    found[f"{module}.{node.name}"] = lines
    assert not found


def test_test_modules_are_short() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in TESTS.rglob("*.py")}
    long = {str(path.relative_to(TESTS)): n for path, n in lines.items() if n >= TEST_MODULES_BELOW}
    assert not long


def test_tests_stand_in_folders_named_as_their_packages() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    folders = {path.parent.name for path in TESTS.glob("*/*") if path.parent.name != "__pycache__"}
    assert folders <= packages | NO_PACKAGE
