"""Runtimes that files can be written for, by name: what `ltmp export --for` takes."""

from __future__ import annotations

from ltmp_export.errors import InputError

ANY = "any"  # in all forms that a runtime needs
TRACT, IREE, TVM, MNN = "tract", "iree", "tvm", "mnn"
TARGETS = (TRACT, IREE, TVM, MNN, "openvino", "onnxruntime-web", "tensorrt", ANY)


def require_known(target: str | None) -> None:
    """Check that a runtime is known.

    Raises:
        InputError: It is not.
    """
    if target is not None and target not in TARGETS:
        raise InputError(f"unknown runtime {target!r}: expected one of {', '.join(TARGETS)}")
