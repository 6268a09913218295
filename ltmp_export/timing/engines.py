"""What a timing process runs: a model in one of the `runtimes`, or what is no model file.

What an engine needs is imported only where it is opened: the memory of a process is then that of
its own runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.runtimes import session
from ltmp_export.runtimes.session import Engine, Options


def open_engine(start: Mapping[str, Any]) -> Engine | Gemms:
    """What runs a contender (`Contender.start`), with `threads`.

    Raises:
        InputError: Nothing of that name runs models.
    """
    if start["kind"] == "gemms":
        return Gemms(start)
    if start["kind"] == "eager":
        return Eager(start)
    return session.load(start["kind"]).open_engine(Path(start["file"]), options(start))


def inputs(engine: Engine | Gemms, images: NDArray[np.float32], rows: Sequence[int]) -> Any:
    """What an engine runs for one batch; not timed.

    Args:
        engine: The engine.
        images: [B, channels, H, W].
        rows: [products] how many rows the images mean to each matrix product, for `Gemms` alone.
    """
    return engine.inputs(rows) if isinstance(engine, Gemms) else engine.inputs(images)


def options(start: Mapping[str, Any], *, only_first: bool = False) -> Options:
    """How a contender's file is opened: all that it gives is read, or its first output."""
    return Options(start["threads"], tuple(start["providers"]), only_first=only_first)


class Gemms:
    """Matrix products alone, see `roofline`, in onnxruntime."""

    def __init__(self, start: Mapping[str, Any]) -> None:
        from ltmp_export.runtimes import onnxruntime

        first = options(start, only_first=True)
        opened = onnxruntime.open_engine(Path(start["file"]), first)
        self.engine, self.run = opened.engine, opened.run
        self._names = [(value.name, value.shape[1]) for value in opened.session.get_inputs()]
        self._rows: dict[int, NDArray[np.float32]] = {}

    def inputs(self, rows: Sequence[int]) -> Any:
        """Views of `rows` rows of random numbers, one for each product."""
        feeds = {}
        for (name, width), count in zip(self._names, rows, strict=True):
            if len(self._rows.get(width, ())) < count:
                generator = np.random.default_rng(width)
                self._rows[width] = generator.standard_normal((count, width), np.float32)
            feeds[name] = self._rows[width][:count]
        return feeds


class Eager:
    """The literal translation of a checkpoint in PyTorch, one image at a time.

    It is a `runtimes.session.Engine`, though no runtime of files.
    """

    def __init__(self, start: Mapping[str, Any]) -> None:
        import torch

        from ltmp_export.timing import literal

        torch.set_num_threads(start["threads"])
        self._torch = torch
        self._model = literal.load(start["file"], start["choices"], start["base_checkpoint"])
        self.engine = f"PyTorch {torch.__version__.split('+')[0]}"
        self.provider = "CPU"

    def inputs(self, images: NDArray[np.float32]) -> Any:
        """A tensor of the same memory."""
        return self._torch.from_numpy(images)

    def run(self, inputs: Any) -> list[NDArray[Any]]:
        """The model's logits."""
        with self._torch.inference_mode():
            return [self._model(inputs).numpy()]
