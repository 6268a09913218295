"""Who computed what is compared: a runtime here, or one elsewhere whose results were recorded.

A check asks twice: for the outputs of the file as it is, and for its inner tensors, which a runtime
gives of a copy of the graph. Where there are none, outputs are all that is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from ltmp_export.errors import ExportError
from ltmp_export.graph.interface import missing_tensors
from ltmp_export.parity.runs import Run
from ltmp_export.runtimes import session
from ltmp_export.runtimes.recording import TappedSession
from ltmp_export.runtimes.session import ONNXRUNTIME, Session


class Runner(Protocol):
    """Gives tensors by name, batch by batch."""

    def run(self, run: Run, which: int, pixels: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
        """Those of batch `which` of a run, of the images `pixels` [B, channels, H, W].

        Raises:
            ExportError: Its runtime fails on them.
        """


class Computed(Protocol):
    """A model that was run, or will be.

    Attributes:
        told: By what, for a person; known when it was asked for its outputs.
        why_outputs_only: Why there are no inner tensors, or "".
        reverses: Whether it also runs batches in reversed order.
    """

    told: str
    why_outputs_only: str
    reverses: bool

    def plain(self) -> Runner:
        """The outputs of the file as it is.

        Raises:
            ExportError: It does not load.
        """

    def tapped(self, wanted: Mapping[str, int]) -> Runner | None:
        """The same with inner tensors of these names and element types, or None without them.

        Raises:
            InputError: The file lacks one of the tensors.
            ExportError: It does not load.
        """

    def keeps(self, err: ExportError) -> bool:
        """Whether that its runtime fails on a batch with inner tensors is no fault of the file.

        What it gives without is then compared, and `why_outputs_only` says so.
        """


class _Opened:
    """A session as a `Runner`."""

    def __init__(self, opened: Session | TappedSession, names: Sequence[str]) -> None:
        self._opened, self._names = opened, names

    def run(self, run: Run, which: int, pixels: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
        """Run it."""
        found = self._opened.run(pixels)
        return found if isinstance(found, dict) else dict(zip(self._names, found, strict=True))


class Here:
    """A model in a runtime of this machine, see `Computed`.

    Args:
        model: The exported model.
        beside: Weights that it only refers to.
        runtime: Name of the runtime.
        providers: Execution providers, the first is the one asked for; the CPU by default.
    """

    reverses = True

    def __init__(
        self,
        model: onnx.ModelProto,
        beside: Mapping[str, NDArray[Any]] | None = None,
        runtime: str = ONNXRUNTIME,
        providers: Sequence[str] = (),
    ) -> None:
        self._model, self._beside = model, beside
        self._runtime, self._providers = runtime, tuple(providers)
        self.told, self.why_outputs_only = session.load(runtime).NAME, ""

    def plain(self) -> Runner:
        """A session of the file as it is."""
        opened = Session(
            self._model, weights=self._beside, quiet=True, runtime=self._runtime,
            providers=self._providers,
        )  # fmt: skip
        self.told = f"{opened.engine}, {opened.provider}"
        return _Opened(opened, [output.name for output in self._model.graph.output])

    def tapped(self, wanted: Mapping[str, int]) -> Runner | None:
        """A session of a copy that gives inner tensors, where the runtime takes it.

        Another runtime than onnxruntime may refuse it: what it gives without is still compared.
        """
        called = session.load(self._runtime)
        if missing := missing_tensors(self._model, wanted):
            self.why_outputs_only = lacking(missing)
            return None
        if not called.INNER:
            self.why_outputs_only = f"{called.NAME} gives no inner tensors"
            return None
        try:
            opened = TappedSession(
                self._model, wanted, weights=self._beside, quiet=True, runtime=self._runtime,
                providers=self._providers,
            )  # fmt: skip
        except ExportError as err:
            if not self.keeps(err):
                raise
            return None
        return _Opened(opened, ())

    def keeps(self, err: ExportError) -> bool:
        """Another runtime than onnxruntime may refuse the copy only when it is run."""
        if self._runtime == ONNXRUNTIME:
            return False
        self.why_outputs_only = f"with inner tensors as outputs, {_first_line(err)}"
        return True


def lacking(missing: Sequence[str]) -> str:
    """That a file lacks inner tensors, and what to do."""
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return (
        f"the file lacks the named tensor {missing[0]}{more}, so its decisions cannot be read; "
        "export it again, or check it before other tools rename or drop tensors"
    )


def _first_line(err: ExportError) -> str:
    """What a runtime says, without its traces."""
    return str(err).strip().splitlines()[0]
