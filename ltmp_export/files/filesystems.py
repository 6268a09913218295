"""The file systems of addresses, which fsspec opens, and how long they are waited for.

Nobody is waited for without end. A web server that says nothing for `SILENCE` seconds, however much
it has sent before, is given up; a slow one is not. s3fs and gcsfs ask again by themselves, for
minutes: an answer of theirs has `SILENCE` seconds in all, and more for many bytes (`SLOWEST`). Only
lists, which come page by page, are as long as these packages let them be.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from typing import Any

from ltmp_export.errors import UnavailableError

SILENCE = 30.0  # seconds
SLOWEST = 2**17  # bytes per second of a store that is waited for
_WEB, _STORES = ("http", "https"), ("s3", "s3a", "gs", "gcs")
_GONE = (404, 410)  # what web servers say of what is not there
_LOGS = ("gcsfs", "s3fs", "aiobotocore", "botocore", "google")
_UNHEARD = logging.NullHandler()
_READ = re.compile("(AWS|AZURE|FSSPEC|GCSFS|GOOGLE)_.+|STORAGE_EMULATOR_HOST|HF_TOKEN")
Tree = Any  # an fsspec file system; the package is optional


def environment() -> dict[str, str]:
    """What file systems read of it, for processes elsewhere: credentials and endpoints."""
    return {name: value for name, value in os.environ.items() if _READ.fullmatch(name)}


def scheme(address: str) -> str:
    """What an address begins with."""
    return address.partition(":")[0]


def tree(address: str) -> tuple[Tree, str]:
    """The file system of an address, and the place in it.

    Raises:
        UnavailableError: fsspec is missing.
        ImportError: What it needs for these addresses is.
    """
    if importlib.util.find_spec("fsspec") is None:
        raise UnavailableError(
            f"{address} is read by fsspec, which is not installed; install it, or ltmp's extra "
            "'data'"
        )
    import fsspec

    for name in _LOGS:  # what they tell of an error, its traceback included, is said in one line
        logging.getLogger(name).addHandler(_UNHEARD)
    found: tuple[Tree, str] = fsspec.core.url_to_fs(address, **_patience(address))
    return found


def is_folder(address: str) -> bool:
    """Whether there is a folder; like what follows, with the file system's own errors."""
    if scheme(address) in _STORES:  # their `isdir` lists it, page by page
        found = _looked(address)
        return found is not None and found["type"] == "directory"
    there, place = tree(address)
    return bool(there.isdir(place))


def exists(address: str) -> bool:
    """Whether there is a file or a folder."""
    if scheme(address) in (*_WEB, *_STORES):  # `exists` takes servers out of reach for empty ones
        return _looked(address) is not None
    there, place = tree(address)
    return bool(there.exists(place))


def size(address: str) -> int:
    """Bytes of a file."""
    return int(_info(address)["size"])


def part(address: str, start: int, end: int) -> bytes:
    """Bytes of a file."""
    there, place = tree(address)
    limit = _limit(address, end - start)
    return bytes(there.cat_file(place, start=start, end=end, **limit))


def opened(address: str) -> Any:
    """A file, open to be read and sought in."""
    there, place = tree(address)
    if scheme(address) not in _STORES:
        return there.open(place, "rb")
    from fsspec.spec import AbstractBufferedFile

    class Parts(AbstractBufferedFile):  # type: ignore[misc]
        """Waited for as `part` is; files of s3fs and gcsfs themselves are without a limit."""

        def _fetch_range(self, start: int, end: int) -> bytes:
            return part(address, start, end)

    return Parts(there, place, size=size(address))


def _info(address: str) -> dict[str, Any]:
    there, place = tree(address)
    found: dict[str, Any] = there.info(place, **_limit(address))
    return found


def _looked(address: str) -> dict[str, Any] | None:
    """What is known of a file or a folder, or None where there is nothing."""
    try:
        return _info(address)
    except FileNotFoundError as err:
        if scheme(address) in _WEB and _refusal(err) is not None:
            raise
        return None


def _limit(address: str, count: int = 0) -> dict[str, float]:
    """How long a store may take for so many bytes, in fsspec's words."""
    return {"timeout": SILENCE + count / SLOWEST} if scheme(address) in _STORES else {}


def _patience(address: str) -> dict[str, Any]:
    """How long to wait for web servers, unless fsspec's own configuration says that.

    aiohttp by itself gives up what takes five minutes, be it silence or a large file.
    """
    if scheme(address) not in _WEB:
        return {}
    import aiohttp
    from fsspec.config import conf

    waits = {"connect": SILENCE, "sock_connect": SILENCE, "sock_read": SILENCE}
    limits = {"timeout": aiohttp.ClientTimeout(total=None, **waits)}
    return {"client_kwargs": limits | conf.get(scheme(address), {}).get("client_kwargs", {})}


def said(err: BaseException, address: str) -> str:
    """What an error says of a file, in one line."""
    import asyncio

    web = scheme(address) in _WEB
    if isinstance(err, FileNotFoundError):
        why = _refusal(err) if web else None
        return "it does not exist" if why is None else said(why, address)
    if isinstance(err, (TimeoutError, asyncio.TimeoutError)):  # one and the same from Python 3.11
        limit = f"for {SILENCE:g} s" if web or scheme(address) in _STORES else "in time"
        return f"its server does not answer {limit}; try again, or copy it here"
    if type(err).__name__ == "ClientPayloadError":  # of aiohttp
        return "its server broke off in the middle of an answer; try again, or copy it here"
    return line(err)


def _refusal(err: FileNotFoundError) -> BaseException | None:
    """Why a web server gave no file, which fsspec calls not found whatever it was.

    Returns:
        None where the server says that there is none.
    """
    why = err.__cause__
    gone = isinstance(why, FileNotFoundError) or getattr(why, "status", None) in _GONE
    return None if gone else why


def line(err: BaseException) -> str:
    """What an error says, in one line."""
    text = (getattr(err, "strerror", None) or str(err)).strip()
    return " ".join(text.split()) or type(err).__name__
