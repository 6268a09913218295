"""One protocol for all runtimes: what a file in this folder has to give, and how it is used.

A runtime is a file here with the names that `Runtime` lists; the file's name is the runtime's name,
as `onnxruntime.py` and `openvino.py` are, and nothing else registers it. What it gives is used in
two ways:

    bench  the runtime's `Engine` as it is, in a process of its own: inputs are made once, and only
           `Engine.run` is timed; errors are the runtime's own
    check  a `Session` around it, as everything else that runs a model: images in, float32 out;
           errors are those of this package

This module imports neither PyTorch nor ONNX nor any runtime: the memory of a timing process is that
of its own runtime.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

import ltmp_export.runtimes
from ltmp_export.errors import ExportError
from ltmp_export.runtimes import listed

if TYPE_CHECKING:
    import onnx


ONNXRUNTIME = listed.ONNXRUNTIME


@dataclass(frozen=True)
class Serialised:
    """A model in memory, as runtimes take it.

    Attributes:
        graph: An ONNX model as bytes.
        weights: By name the weights that it only refers to, see `graph.detached.detach`.
    """

    graph: bytes = field(repr=False)
    weights: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)


Source: TypeAlias = Path | Serialised


@dataclass(frozen=True)
class Options:
    """How a model is opened.

    Attributes:
        threads: Threads of an operator, at least 1.
        providers: onnxruntime's execution providers by their full names, the first is the one asked
            for; the runtime's own choice, the CPU, if none is named.
        only_first: Whether a run gives the first output alone.
        quiet: Keep the runtime from logging what it raises as an error anyway, where it would.
        optimised: Whether the runtime may rewrite the graph, where that can be left out.
        sparing: Whether threads that wait for work leave their processors to others, and what a run
            took goes back, where that can be chosen: slower by a little where nobody else runs.
    """

    threads: int
    providers: tuple[str, ...] = ()
    only_first: bool = False
    quiet: bool = False
    optimised: bool = True
    sparing: bool = False


class Engine(Protocol):
    """A model that is ready to run in one runtime.

    Attributes:
        engine: The runtime's `NAME`, a space and its version, for a person.
        provider: Where it runs, in the runtime's words; in onnxruntime the execution providers.
    """

    engine: str
    provider: str

    def inputs(self, images: NDArray[np.float32]) -> Any:
        """What `run` takes, made of images [B, channels, H, W]; they must stay as they are.

        Not timed: here belongs every conversion. No copy is made where none is needed.
        """

    def run(self, inputs: Any) -> list[NDArray[Any]]:
        """The outputs in the order of the graph, or the first alone (`Options.only_first`).

        They are in the types of the graph, and no later run changes them.

        Raises:
            Exception: One of the runtime's `ERRORS`.
        """


class Runtime(Protocol):
    """What a file of this folder defines to be a runtime.

    Attributes:
        NAME: As messages call it.
        ERRORS: What it raises where it does not load or run a model; read without its package.
        SHARES: Whether `Engine.inputs` hands over the images' own memory where they need no
            conversion.
        INNER: Whether inner tensors of a graph that were made outputs are given as any output.
        MODULES: What Python imports of it.
        EXTRA: The extra of this package that installs it, or "" where it is a dependency.
    """

    NAME: str
    ERRORS: tuple[type[Exception], ...]
    SHARES: bool
    INNER: bool
    MODULES: tuple[str, ...]
    EXTRA: str

    def open_engine(self, source: Source, options: Options) -> Engine:
        """Load a model.

        A package that is no dependency of this one is imported here, not with the file. A provider
        that it does not know is refused as "no execution provider NAME…".

        Raises:
            UnavailableError: The runtime is not installed, or does not run where it was asked to.
            ExportError: It does not take the model's weights.
            Exception: One of `ERRORS`.
        """


def names() -> tuple[str, ...]:
    """Names of all runtimes, installed or not, sorted."""
    return tuple(listed.runtimes())


def load(name: str) -> Runtime:
    """The runtime of that name; no other file of this folder is imported for it.

    Raises:
        InputError: There is none.
    """
    listed.find(name)
    return cast(Runtime, importlib.import_module(f"{ltmp_export.runtimes.__name__}.{name}"))


def processor_count() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Session:
    """A model in memory, loaded in a runtime and run on images. It spares the machine.

    Args:
        model: The model; it is not changed.
        weights: Weights by name that the model only refers to, see `graph.detached.detach`.
        runtime: Name of the runtime.
        providers: Execution providers, the first is the one asked for; the CPU by default.
        threads: Threads of an operator; all processors by default.
        quiet: Keep the runtime from logging what it raises as an error anyway.
        optimised: Whether the runtime rewrites the graph, which takes most of the time of loading.

    Attributes:
        engine: The runtime and its version, see `Engine`.
        provider: Where it runs.

    Raises:
        InputError: There is no such runtime.
        UnavailableError: A provider is not installed, or the runtime did not take it.
        ExportError: The runtime does not load the model.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        weights: Mapping[str, NDArray[Any]] | None = None,
        runtime: str = ONNXRUNTIME,
        providers: Sequence[str] = (),
        threads: int | None = None,
        quiet: bool = False,
        optimised: bool = True,
    ) -> None:
        from ltmp_export.graph import detached  # it imports ONNX

        if weights is None:
            model, weights = detached.detach(model)
        options = Options(
            threads or processor_count(), tuple(providers), quiet=quiet, optimised=optimised,
            sparing=True,
        )  # fmt: skip
        self._runtime = load(runtime)
        source = Serialised(detached.serialised(model), weights)
        try:
            self._engine = self._runtime.open_engine(source, options)
        except self._runtime.ERRORS as err:
            raise ExportError(f"{self._runtime.NAME} does not load the model: {err}") from err
        self.engine, self.provider = self._engine.engine, self._engine.provider

    def run(self, images: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Run on [B, channels, H, W] and return all outputs.

        The images are handed over in the type the model takes, float32 or float16, and outputs in
        float16 come back as float32.

        Raises:
            ExportError: The runtime fails on these images.
        """
        try:
            found = self._engine.run(self._engine.inputs(images))
        except self._runtime.ERRORS as err:
            raise ExportError(
                f"{self._runtime.NAME} fails on images of shape {images.shape}: {err}"
            ) from err
        return [_widened(array) for array in found]


def halved(images: NDArray[np.float32]) -> NDArray[np.float16]:
    """Images as float16; what is too large for it becomes infinite."""
    with np.errstate(over="ignore"):
        return images.astype(np.float16)


def _widened(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32) if array.dtype == np.float16 else array
