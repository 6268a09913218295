"""Stores that fall silent, and what processes elsewhere are told; s3fs and gcsfs are played."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.asyn import AsyncFileSystem

from ltmp_export.distributed import stream
from ltmp_export.errors import InputError
from ltmp_export.files import filesystems, remote

CONTENT = bytes(range(256)) * 9
SILENT = "cannot be read: its server does not answer for 0.2 s; try again, or copy it here"


class Store(AsyncFileSystem):  # type: ignore[misc]
    """One file, `b/x`; it answers so often, and then nothing, however often it is asked again."""

    cachable = False

    def __init__(self, answers: int = 99) -> None:
        super().__init__()
        self.answers = answers

    async def _answered(self) -> None:
        self.answers -= 1
        if self.answers < 0:
            await asyncio.sleep(20)

    async def _info(self, path: str, **_: object) -> dict[str, Any]:
        await self._answered()
        if path not in ("b", "b/x"):
            raise FileNotFoundError(path)
        kind = "file" if path == "b/x" else "directory"
        return {"name": path, "size": len(CONTENT), "type": kind}

    async def _cat_file(self, path: str, start: int, end: int, **_: object) -> bytes:
        await self._answered()
        return CONTENT[start:end]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets how often the store answers."""
    monkeypatch.setattr(filesystems, "SILENCE", 0.2)

    def answering(answers: int) -> None:
        tree = Store(answers)
        monkeypatch.setattr(filesystems, "tree", lambda address: (tree, address.split("://")[1]))

    return answering


def read(path: Path) -> bytes:
    with remote.opened(path) as file:
        file.seek(300)
        return file.read(5)


ASKED: list[tuple[Callable[[Path], object], int, object]] = [
    (remote.exists, 0, True),
    (remote.is_folder, 0, False),
    (remote.size, 0, len(CONTENT)),
    (lambda path: remote.part(path, 2, 3), 0, b"\x02\x03\x04"),
    (remote.whole, 2, CONTENT),
    (read, 1, b"\x2c\x2d\x2e\x2f\x30"),
]


@pytest.mark.parametrize("scheme", ["s3", "gs"])
@pytest.mark.parametrize(("ask", "answers", "found"), ASKED)
def test_stores_that_fall_silent(
    store: Callable[[int], None], scheme: str, ask: Callable[[Path], object], answers: int,
    found: object,
) -> None:  # fmt: skip
    path = Path(f"{scheme}://b/x")
    store(99)
    assert ask(path) == found
    store(answers)
    with pytest.raises(InputError, match=f"{scheme}://b/x {SILENT}"):
        ask(path)


def test_what_a_store_has(store: Callable[[int], None]) -> None:
    store(99)
    assert remote.is_folder(Path("gs://b"))
    assert not remote.is_folder(Path("gs://b/y"))
    assert not remote.exists(Path("gs://b/y"))
    with pytest.raises(InputError, match="s3://b/y cannot be read: it does not exist"):
        read(Path("s3://b/y"))


def test_processes_elsewhere_ask_as_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its credentials, and with nothing else of its environment."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://there")
    monkeypatch.setenv("UNRELATED", "1")
    sent = filesystems.environment()
    assert "UNRELATED" not in sent
    for name in ("AWS_SECRET_ACCESS_KEY", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(name)
    assert stream._as_here(sent, filesystems.environment) == sent
