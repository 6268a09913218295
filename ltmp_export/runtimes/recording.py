"""Inner tensors of a graph made outputs, in memory: the file stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ltmp_export.errors import InputError
from ltmp_export.graph import detached
from ltmp_export.graph.interface import missing_tensors, tapped
from ltmp_export.runtimes.session import ONNXRUNTIME, Session


class TappedSession:
    """A session that also gives named inner tensors of the graph.

    Args:
        model: An exported model; the file's graph is not changed.
        taps: Element type (`onnx.TensorProto`) by tensor name.
        weights: Weights by name that the model only refers to.
        runtime: As for `Session`; so are the next four.
        providers: Execution providers.
        threads: Threads of an operator.
        quiet: Whether the runtime logs nothing.
        optimised: Whether the runtime rewrites the graph.

    Raises:
        InputError: The graph lacks one of the tensors.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        taps: Mapping[str, int],
        *,
        weights: Mapping[str, NDArray[Any]] | None = None,
        runtime: str = ONNXRUNTIME,
        providers: Sequence[str] = (),
        threads: int | None = None,
        quiet: bool = False,
        optimised: bool = True,
    ) -> None:
        if missing := missing_tensors(model, taps):
            raise InputError(
                f"the model has no tensor {missing[0]}: its blocks do not take the steps expected, "
                "or the graph was renamed; export it again with this version"
            )
        copy = model
        if weights is None:
            copy, weights = detached.detach(model)
        copy = tapped(copy, taps, shaped=runtime != ONNXRUNTIME)
        self._names = [value.name for value in copy.graph.output]
        self._session = Session(
            copy, weights=weights, runtime=runtime, providers=providers, threads=threads,
            quiet=quiet, optimised=optimised,
        )  # fmt: skip

    @property
    def provider(self) -> str:
        """Where it runs: in onnxruntime the execution providers, first the one asked for."""
        return self._session.provider

    def run(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """[B, channels, H, W] → the file's own outputs and the taps, by name."""
        return dict(zip(self._names, self._session.run(images), strict=True))
