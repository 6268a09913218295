"""What file systems elsewhere answer, and what is said of it; they are played here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from ltmp_export.errors import InputError
from ltmp_export.files import filesystems, remote

SHARD = Path("http://host/a.tar")


class RefusedError(Exception):
    """As of aiohttp: an answer with a status, or none."""

    def __init__(self, status: int | None) -> None:
        super().__init__(f"refused {status}")
        self.status = status


def web(monkeypatch: pytest.MonkeyPatch, why: Exception | None) -> None:
    """A server without the file, as fsspec tells of it, that gives whole files only."""

    def info(place: str) -> None:
        raise FileNotFoundError(place) from why

    def cat_file(place: str, start: int, end: int) -> bytes:
        return bytes(1000)

    tree = SimpleNamespace(
        protocol=("http", "https"), exists=lambda place: False, info=info, cat_file=cat_file
    )
    monkeypatch.setattr(filesystems, "tree", lambda address: (tree, address))


@pytest.mark.parametrize("why", [None, FileNotFoundError("no"), RefusedError(404)])
def test_a_server_says_that_there_is_nothing(
    monkeypatch: pytest.MonkeyPatch, why: Exception | None
) -> None:
    web(monkeypatch, why)
    assert not remote.exists(SHARD)


@pytest.mark.parametrize("why", [OSError("Cannot connect to host"), RefusedError(403)])
def test_a_server_says_nothing_or_refuses(monkeypatch: pytest.MonkeyPatch, why: Exception) -> None:
    """Fsspec takes that for a file that is not there."""
    web(monkeypatch, why)
    with pytest.raises(InputError, match=f"http://host/a.tar cannot be read: {why}"):
        remote.exists(SHARD)


def test_a_server_gives_whole_files_only(monkeypatch: pytest.MonkeyPatch) -> None:
    web(monkeypatch, None)
    with pytest.raises(InputError, match=r"gives no parts of a file \(range requests\)"):
        remote.part(SHARD, 10, 20)
    assert remote.part(SHARD, 0, 1000) == bytes(1000)
