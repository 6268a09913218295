"""Files timed in other runtimes than onnxruntime, in the same rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ltmp_export.errors import InputError
from ltmp_export.runtimes import installed, listed
from ltmp_export.timing.contenders import Contender

OPENVINO = "openvino"


def others() -> list[str]:
    """Every runtime that is installed but onnxruntime, in which the file itself is timed.

    OpenVINO is always one of them: where it is not, its rows say what to install.
    """
    return [
        name
        for name in listed.runtimes()
        if name == OPENVINO or (name != listed.ONNXRUNTIME and installed.version(name) is not None)
    ]


def contenders(runtimes: Sequence[str], files: Mapping[str, Path | None]) -> list[Contender]:
    """Files by their labels, in other runtimes by their names; none of them required."""
    return [
        Contender(f"{listed.find(name).called} {what}", name, file)
        for name in runtimes
        for what, file in files.items()
        if file is not None
    ]


def require(runtimes: Sequence[str]) -> None:
    """Check runtimes that were asked for.

    Raises:
        InputError: One is not known, is the file's own, or is there twice.
        UnavailableError: One is not installed.
    """
    for name in runtimes:
        listed.find(name)
    if listed.ONNXRUNTIME in runtimes or len({*runtimes}) < len(runtimes):
        raise InputError(
            f"--runtime {','.join(runtimes)}: name others than {listed.ONNXRUNTIME}, in which the "
            "file is timed anyway, each once"
        )
    for name in runtimes:
        installed.require(name)
