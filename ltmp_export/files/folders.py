"""Folders of files, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from ltmp_export.errors import InputError
from ltmp_export.files import disk, undo

WAY_OUT = "choose another folder"


def require_folder(folder: Path) -> None:
    """Check early that files can be written to a folder, which need not be there.

    Raises:
        InputError: They cannot.
    """
    with disk.telling(folder, WAY_OUT):
        inside = os.path.isdir(folder)
    disk.require_outputs([folder / "x.tmp" if inside else folder])


def write(folder: Path, parts: Iterable[tuple[str, bytes]], *, fresh: bool = False) -> None:
    """Write files to a folder, all or none: a temporary folder beside it, then a rename.

    What is there already stays, but for files of the same names, each of which is replaced whole.

    Args:
        folder: Where; its own folder must be there.
        parts: Names and contents, made one after the other; of a fresh folder also `folder/name`.
        fresh: Whether nothing may be there.

    Raises:
        InputError: The system refuses, or something is there that may not be.
    """
    target = folder.resolve()
    temporary = target.with_name(f".{target.name[:40]}.{secrets.token_hex(6)}.tmp")
    clear = partial(shutil.rmtree, temporary, ignore_errors=True)
    with undo.undone(clear):
        with disk.telling(folder, WAY_OUT):
            temporary.mkdir()
        names = []
        for name, content in parts:
            with disk.telling(folder / name, WAY_OUT):
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                disk.write_new(temporary / name, [content])
            names.append(name)
        with disk.telling(folder, WAY_OUT), undo.postponed():
            if not target.is_dir() or not any(target.iterdir()):
                if os.name == "nt" and target.is_dir():
                    target.rmdir()  # elsewhere a rename replaces an empty folder
                temporary.replace(target)
                return
            if fresh:
                raise InputError(f"cannot write {folder}: it is not empty; {WAY_OUT}")
            taken = [name for name in names if (target / name).is_dir()]
            if taken:
                raise InputError(f"{folder / taken[0]} is a folder; {WAY_OUT}")
            for name in names:
                os.replace(temporary / name, target / name)
