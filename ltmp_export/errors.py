"""Everything this package raises on purpose, with the exit code each becomes.

    LtmpError
    ├── CheckFailedError    1   a check or comparison failed
    ├── InputError          2   bad usage or bad input
    ├── ExportError         3   the export itself failed
    └── UnavailableError    4   an optional dependency or execution provider is missing

A message says what was found, what was expected, and what to do next, in one line.
"""

from __future__ import annotations


class LtmpError(Exception):
    """Base of all errors of this package; `exit_code` is the command's exit code."""

    exit_code = 1


class CheckFailedError(LtmpError):
    """A finished comparison came out against the exported model."""

    exit_code = 1


class InputError(LtmpError):
    """The user's file, flag or image cannot be used as it is."""

    exit_code = 2


class ExportError(LtmpError):
    """The graph could not be written as asked (opset, architecture, checker)."""

    exit_code = 3


class UnavailableError(LtmpError):
    """An execution provider or an optional package is not there."""

    exit_code = 4
