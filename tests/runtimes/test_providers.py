"""Names of execution providers, and proof that the one asked for runs."""

from __future__ import annotations

import pytest

from ltmp_export.errors import InputError, UnavailableError
from ltmp_export.runtimes.providers import require_used, resolve

KNOWN = [
    f"{name}ExecutionProvider"
    for name in ("Tensorrt", "NvTensorRTRTX", "CUDA", "OpenVINO", "CoreML", "CANN", "CPU", "Azure")
]
HERE = ["CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["CPUExecutionProvider"], ["CPU"]),
        (["cpu"], ["CPU"]),
        (["CPU"], ["CPU"]),
        (["cu", "cp"], ["CUDA", "CPU"]),
        (["cuda", " cpu"], ["CUDA", "CPU"]),
        (["cudaexecutionprovider"], ["CUDA"]),
        (["cpu", "CPU"], ["CPU"]),
    ],
)
def test_names(asked: list[str], found: list[str]) -> None:
    full = tuple(f"{name}ExecutionProvider" for name in found)
    assert resolve(asked, KNOWN, HERE) == full


def test_several_fit() -> None:
    with pytest.raises(InputError, match="'c' may be CUDAExec.* or CoreMLExec.* or CANN.*; say wh"):
        resolve(["c"], KNOWN, HERE)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("openvino", "no execution provider OpenVINOExecutionProvider in the installed onnxrun"),
        ("tensorrt", "no execution provider TensorrtExecutionProvider in the installed"),
        ("cdua", "no execution provider cdua is known to onnxruntime; did you mean cuda"),
        (
            "NoProvider",
            "no execution provider NoProvider is known to onnxruntime; there are azure, ",
        ),
    ],
)
def test_none_fits(asked: str, message: str) -> None:
    with pytest.raises(UnavailableError, match=message):
        resolve([asked], KNOWN, HERE)


@pytest.mark.parametrize("asked", [[""], ["cpu", " "]])
def test_no_name_is_bad_usage(asked: list[str]) -> None:
    with pytest.raises(InputError, match="an execution provider without a name"):
        resolve(asked, KNOWN, HERE)


def test_a_provider_that_runs_nothing_is_not_used() -> None:
    require_used("CUDAExecutionProvider", {"CUDAExecutionProvider": 1, "CPU": 900}, "m.onnx")
    with pytest.raises(UnavailableError, match="runs none of the nodes of m.onnx: CPU runs 900"):
        require_used("CUDAExecutionProvider", {"CPU": 900}, "m.onnx")
