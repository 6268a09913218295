"""What other tools have made of a file: what ltmp can no longer read in it, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx
from onnx import TensorProto

from ltmp_export.errors import InputError
from ltmp_export.precision.formats import FP16, Precision

_STANDARD = ("", "ai.onnx")
_ORT = b"ORTM"  # behind four bytes, as in every file of this format
_BLOCKED = "com.microsoft.nchwc"


def require_onnx(path: Path, content: bytes) -> None:
    """Check that a file is not in onnxruntime's own format.

    Raises:
        InputError: It is.
    """
    if content[4:8] == _ORT:
        raise InputError(
            f"{path} is in onnxruntime's own format (ORT), which only onnxruntime reads; give the "
            "ONNX file that it was made of; for what this one gives, feed it what 'ltmp inputs' "
            "writes of that, and have it judged by 'ltmp check … --recorded'"
        )


def require_precision(path: Path, model: onnx.ModelProto, precision: Precision) -> None:
    """Check that a file holds float16 only where it says so.

    Raises:
        InputError: It holds some elsewhere.
    """
    halves = [t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT16]
    if precision.kind != FP16 and halves:
        raise InputError(
            f"{path} states {precision.kind} and stores {halves[0]} in float16: a tool has "
            "converted it, what decides included; export it with --precision fp16, which keeps "
            "that in float32"
        )


def kind(node: onnx.NodeProto) -> str:
    """An operator's name, with its domain where that is not the standard one."""
    return node.op_type if node.domain in _STANDARD else f"{node.domain}:{node.op_type}"


def remarks(model: onnx.ModelProto) -> list[str]:
    """What holds for a file since a tool has written it anew."""
    domains = sorted({node.domain for node in model.graph.node} - {*_STANDARD})
    if not domains:
        return []
    found = (
        f"holds operators of {', '.join(domains)}, as onnxruntime saves them: it runs in "
        "onnxruntime alone"
    )
    if _BLOCKED in domains:
        found += ", and only on processors like the one it was saved on"
    return [f"{found}; keep the file from before for all else"]


def unseen(model: onnx.ModelProto, weights: Iterable[str]) -> list[str]:
    """What cannot be compared since a tool has written a file anew; `weights` by their names."""
    told = remarks(model)
    stored = {tensor.name.removesuffix(".int8") for tensor in model.graph.initializer}
    lacking = [name for name in weights if name not in stored]
    if told and lacking:
        more = f" and {len(lacking) - 1} more" if lacking[1:] else ""
        told.append(
            f"stores the weight {lacking[0]}{more} in another form: judged by what the file "
            "computes, not number by number"
        )
    return told
