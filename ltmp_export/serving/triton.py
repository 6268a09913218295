"""A model of a Triton Inference Server's repository: its `config.pbtxt`.

Fields and their meaning: `model_config.proto` of triton-inference-server/common, as released with
tritonclient 2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ltmp_export.errors import InputError
from ltmp_export.serving.signature import FREE, Signature, Tensor

CONFIG, MODEL = "config.pbtxt", "model.onnx"
MOST = 1024  # of what is counted here
_TYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "int64": "TYPE_INT64",
    "uint8": "TYPE_UINT8",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class Word(str):
    """A name that the protobuf knows: written without quotation marks."""

    __slots__ = ()


Value: TypeAlias = "str | int | bool | Sequence[Value] | Mapping[str, Value]"


@dataclass(frozen=True)
class Deployment:
    """How a server is to run a model.

    Attributes:
        name: Of the model.
        max_batch_size: The most images in one run; None takes what suits the file.
        max_queue_delay: Microseconds that a request may wait for others to fill a batch.
        instances: Copies of the model that run at once.
        gpu: Whether they run on GPUs, so many on each.
        threads: Of an operator; None leaves it to onnxruntime, which takes all processors.
    """

    name: str
    max_batch_size: int | None = None
    max_queue_delay: int = 500
    instances: int = 1
    gpu: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"model name {self.name!r:.80}: expected letters, digits, -, _ and ., the first a "
                "letter or digit, at most 100; state one with --name"
            )
        counts = {"max-batch-size": self.max_batch_size, "instances": self.instances}
        for what, count in (counts | {"threads": self.threads}).items():
            if count is not None and not 1 <= count <= MOST:
                raise InputError(f"--{what} {count}: expected 1 to {MOST}")
        if not 0 <= self.max_queue_delay <= 10**7:
            raise InputError(
                f"--max-queue-delay {self.max_queue_delay}: expected microseconds, 0 to 10,000,000"
            )


MAX_BATCH_SIZE = 32
WARM = 256  # height and width of the pictures that warm up a model that takes any


def max_batch_size(given: Signature, deployment: Deployment) -> int:
    """The most images in one run; 0 of a file that has its batch fixed, as Triton calls that.

    Raises:
        InputError: Another is asked for than the file takes.
    """
    asked = deployment.max_batch_size
    if given.batch is None:
        return asked or MAX_BATCH_SIZE
    if asked not in (None, given.batch):
        raise InputError(
            f"--max-batch-size {asked}: the file takes batches of {given.batch} only; drop it, or "
            "export without --batch-size"
        )
    return 0


def config(given: Signature, deployment: Deployment) -> str:
    """The text of `config.pbtxt`.

    Raises:
        InputError: The file cannot be deployed so.
    """
    most = max_batch_size(given, deployment)

    def tensor(one: Tensor) -> dict[str, Value]:
        return {
            "name": one.name,
            "data_type": Word(_TYPES[one.numbers]),
            "dims": one.axes[1:] if most else one.axes,
        }

    images = tensor(given.images)
    sides = [WARM if side == FREE else side for side in given.images.axes[1 if most else 0 :]]
    pixels = {"data_type": images["data_type"], "dims": sides, "random_data": True}
    warm: dict[str, Value] = {"key": given.images.name, "value": pixels}
    sizes = dict.fromkeys((1, most)) if most else (1,)
    fields: dict[str, Value] = {
        "name": deployment.name,
        "backend": "onnxruntime",
        "default_model_filename": MODEL,
        "max_batch_size": most,
        "input": [images],
        "output": [tensor(one) for one in given.outputs],
        "instance_group": [
            {
                "count": deployment.instances,
                "kind": Word("KIND_GPU" if deployment.gpu else "KIND_CPU"),
            }
        ],
        "model_warmup": [
            {"name": f"batch {size}", "batch_size": size, "inputs": [warm]} for size in sizes
        ],
    }
    if most > 1:
        fields["dynamic_batching"] = {"max_queue_delay_microseconds": deployment.max_queue_delay}
    if deployment.threads is not None:
        threads = {"string_value": str(deployment.threads)}
        fields["parameters"] = [{"key": "intra_op_thread_count", "value": threads}]
    return "\n".join(_lines(fields)) + "\n"


def _lines(fields: Mapping[str, Value], indent: str = "") -> Iterator[str]:
    """Protobuf's text format; lists of numbers in one line, each message of a list in its own."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name} {{"
            yield from _lines(value, indent + "  ")
            yield f"{indent}}}"
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if all(isinstance(one, int) for one in value):
                yield f"{indent}{name}: [{', '.join(map(str, value))}]"
            else:
                for one in value:
                    yield from _lines({name: one}, indent)
        else:
            plain = isinstance(value, (Word, int))
            text = str(value).lower() if isinstance(value, bool) else str(value)
            yield f"{indent}{name}: {text if plain else json.dumps(value)}"
