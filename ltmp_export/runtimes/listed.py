"""The runtimes that have a file here, read from the files' text: nothing is imported for it.

So a `--help` that names them, and `ltmp runtimes`, need neither NumPy nor any runtime.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ltmp_export.runtimes
from ltmp_export.errors import InputError

ONNXRUNTIME = "onnxruntime"
_OPENS = "open_engine"  # what makes a file here a runtime's


@dataclass(frozen=True)
class Listed:
    """What a file says of its runtime, see `session.Runtime`.

    Attributes:
        called: Its `NAME`.
        modules: Its `MODULES`.
        extra: Its `EXTRA`.
    """

    called: str
    modules: tuple[str, ...]
    extra: str


def runtimes() -> Mapping[str, Listed]:
    """All runtimes by the names of their files, installed or not, sorted."""
    return _read(tuple(ltmp_export.runtimes.__path__))


@functools.cache
def _read(folders: tuple[str, ...]) -> Mapping[str, Listed]:
    """The runtimes among the files of folders."""
    found = {}
    files = (path for folder in folders for path in Path(folder).glob("*.py"))
    for path in sorted(files, key=lambda path: path.stem):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        if any(isinstance(part, ast.FunctionDef) and part.name == _OPENS for part in body):
            plain = {
                target.id: part.value
                for part in body
                if isinstance(part, ast.Assign)
                for target in part.targets
                if isinstance(target, ast.Name)
            }
            told = (ast.literal_eval(plain[name]) for name in ("NAME", "MODULES", "EXTRA"))
            found[path.stem] = Listed(*told)
    return found


def find(name: str) -> Listed:
    """One of them.

    Raises:
        InputError: There is none of that name.
    """
    if name not in runtimes():
        raise InputError(f"no runtime {name!r}; there are {', '.join(runtimes())}")
    return runtimes()[name]
