"""A Ray cluster: one that runs somewhere, or one of this machine for as long as it is needed."""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from ltmp_export.errors import InputError, UnavailableError
from ltmp_export.files import undo
from ltmp_export.files.streams import silence
from ltmp_export.progress import Progress, silent

LOCAL, RAY = "local", "ray"
ENGINES = (LOCAL, RAY)
_STORE = 2**28  # bytes of shared memory of a cluster of this machine
_PATIENCE = 5.0  # seconds until a cluster answers


@dataclass(frozen=True)
class Place:
    """Where images run: in this process, or in processes of a Ray cluster, which find the same.

    Attributes:
        engine: "local" or "ray".
        address: Of a cluster: `HOST:PORT`, `ray://HOST:PORT` or `auto`; by default `RAY_ADDRESS`,
            else one of this machine is started, and ended afterwards.
        workers: Processes: here those that read images beside this one (an export has none); of a
            cluster those that compute, by default (0) one for each of its processors.
    """

    engine: str = LOCAL
    address: str | None = None
    workers: int = 0

    @property
    def is_cluster(self) -> bool:
        """Whether it is processes of a cluster."""
        return self.engine == RAY

    def require(self) -> None:
        """Check that it can be; nothing is connected to.

        Raises:
            InputError: The engine is none, or the address or the number do not go with it.
            UnavailableError: Its package is missing.
        """
        if self.engine not in ENGINES:
            raise InputError(f"engine {self.engine!r}; expected {' or '.join(ENGINES)}")
        if self.workers < 0:
            raise InputError(f"{self.workers} workers; expected 0 or more")
        if self.is_cluster:
            package()
        elif self.address is not None:
            raise InputError(
                f"the address {self.address} is of a Ray cluster; give --engine ray, too"
            )


HERE = Place()


def package() -> Any:
    """Ray.

    Raises:
        UnavailableError: It is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as err:
        raise UnavailableError(
            "Ray is not installed (no module ray): install it, or ltmp's extra 'distributed'"
        ) from err


@contextlib.contextmanager
def connected(place: Place, progress: Progress = silent) -> Iterator[int]:
    """Be connected to a cluster; one that was connected to before stays so.

    Args:
        place: Which; one that is started here ends with the block.
        progress: Called with a few words before.

    Yields:
        How many processes.

    Raises:
        InputError: Nobody answers there, or it has fewer processors.
        UnavailableError: Ray is missing.
    """
    place.require()
    ray = package()
    progress("connecting to the cluster")
    with contextlib.nullcontext() if ray.is_initialized() else _joined(ray, place), _keeping(ray):
        yield _count(ray, place.workers)


@contextlib.contextmanager
def _joined(ray: Any, place: Place) -> Iterator[None]:
    """Connect, and leave at the end; see `connected`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = place.address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        here = {"num_cpus": place.workers or None, "object_store_memory": _STORE}
        options |= here | {"include_dashboard": False, "_skip_env_hook": True}
    else:
        _require_answer(address)
        options |= {"address": address}
    with undo.undone(partial(_leave, ray)):
        with tempfile.TemporaryFile() as said:
            try:
                with silence(said):  # its libraries write there past Python
                    ray.init(**options)
            except (OSError, RuntimeError, ValueError, ImportError) as err:
                said.seek(0)
                raise _refusal(address, err, said.read()) from err
        yield


_kept: list[tuple[int, Any]] | None = None  # processes without work, each with its GPUs


@contextlib.contextmanager
def _keeping(ray: Any) -> Iterator[None]:
    """Keep processes without work until the outermost connection ends."""
    global _kept
    if _kept is not None:
        yield
        return
    _kept = []
    try:
        yield
    finally:
        left, _kept = _kept, None
        for _, process in left:
            ray.kill(process)


def keep(gpus: int, process: Any) -> None:
    """A process without work."""
    if _kept is None:
        package().kill(process)
    else:
        _kept.append((gpus, process))


def kept(gpus: int) -> Any:
    """One that has so many GPUs, which is kept no longer; None where there is none.

    Others are ended: their processors may be needed.
    """
    while _kept:
        held, process = _kept.pop()
        if held == gpus:
            return process
        package().kill(process)
    return None


def _refusal(address: str | None, err: Exception, said: bytes) -> InputError:
    """Why there is no connection."""
    if b"AuthToken" in said:  # Ray looks for its token by itself for `auto` alone
        return InputError(
            f"the Ray cluster at {address} asks for its token; set RAY_AUTH_MODE=token, and "
            "RAY_AUTH_TOKEN to what ~/.ray/auth_token holds where it was started"
        )
    where = "on this machine" if address is None else f"at {address}"
    return InputError(f"no Ray cluster {where}: {_line(err)}")


def _leave(ray: Any) -> None:
    ray.shutdown()


def _line(err: Exception) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0]


def _count(ray: Any, workers: int) -> int:
    """As many processes as were asked for, if there are processors for them."""
    there = int(ray.cluster_resources().get("CPU", 0))
    if workers > there or not there:
        raise InputError(f"{workers or 1} workers, but the Ray cluster has {there} processors")
    return workers or there


def _require_answer(address: str) -> None:
    """Ask before Ray does, which waits for minutes.

    Raises:
        InputError: Nobody answers, or it is no address.
    """
    if address == "auto":
        return
    place = address.removeprefix("ray://")
    host, _, port = place.rpartition(":")
    if not host or "/" in place or not port.isdecimal() or int(port) > 65535:
        raise InputError(f"address {address}; expected HOST:PORT, ray://HOST:PORT or auto")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _PATIENCE) as connection:
            answers = "RAY_USE_TLS" in os.environ or _speaks(connection)
    except OSError as err:
        raise InputError(
            f"no Ray cluster at {address}: {err.strerror or err}; start one with 'ray start "
            "--head', or drop --address to start one on this machine"
        ) from err
    if not answers:
        raise InputError(f"no Ray cluster at {address}: what answers there is none")


def _speaks(connection: socket.socket) -> bool:
    """Whether the other side has the protocol of Ray's, HTTP/2: settings are its first answer."""
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
    try:
        return connection.recv(4)[3:] == b"\x04"
    except (TimeoutError, ConnectionError):
        return False
