"""ONNX models in tract (Sonos), in Rust, on the CPU: a plan for each shape that it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltmp_export.runtimes import installed, providers, whole
from ltmp_export.runtimes.session import Options, Source, halved

NAME = "tract"
ERRORS: tuple[type[Exception], ...] = (RuntimeError,)
SHARES = False
INNER = True
MODULES = ("tract",)
EXTRA = "tract"


class Tract:
    """A model in tract, see `runtimes.session.Engine`.

    Where a file leaves the batch open, it is loaded anew for each size: tract's plans of open sizes
    are another code path, and refuse more.
    """

    def __init__(self, source: Source, options: Options) -> None:
        installed.require("tract")
        import tract

        providers.require_none(NAME, options.providers)
        self._tract, self._source, self._only_first = tract, source, options.only_first
        self._plans: dict[tuple[int, ...], Any] = {}
        self.engine = f"{NAME} {installed.version('tract')}"
        self.provider = "CPU"
        *self._sides, kind = self._loaded().input_fact(0).dump().lower().split(",")
        self._half = kind == "f16"

    def inputs(self, images: NDArray[np.float32]) -> Any:
        """A tensor of the images, beside the plan for them."""
        shape = images.shape
        if len(shape) != len(self._sides) or any(
            side.isdecimal() and int(side) != found
            for side, found in zip(self._sides, shape, strict=True)
        ):
            raise RuntimeError(f"the model takes images [{', '.join(self._sides)}]")
        if shape not in self._plans:
            self._plans[shape] = self._planned(shape)
        array = np.ascontiguousarray(halved(images) if self._half else images)
        return self._plans[shape], self._tract.Tensor.from_numpy(array)

    def run(self, inputs: Any) -> list[NDArray[Any]]:
        """The outputs, copied."""
        plan, images = inputs
        try:
            found = plan.run([images])
            return [self._array(one) for one in (found[:1] if self._only_first else found)]
        except self._tract.TractError as err:
            raise RuntimeError(_said(err)) from err

    def _loaded(self) -> Any:
        """The model as tract reads it."""
        try:
            with whole.on_disk(self._source) as path:
                return self._tract.onnx().load(path)
        except self._tract.TractError as err:
            raise RuntimeError(_said(err)) from err

    def _planned(self, shape: tuple[int, ...]) -> Any:
        """The model, made ready for images of a shape."""
        model = self._loaded()
        try:
            model.set_input_fact(0, f"{','.join(map(str, shape))},{'f16' if self._half else 'f32'}")
            for output in range(model.output_count()):
                model.set_output_fact(output, None)  # it speaks of a batch that is now known
            return model.into_model().into_runnable()
        except self._tract.TractError as err:
            raise RuntimeError(_said(err)) from err

    def _array(self, tensor: Any) -> NDArray[Any]:
        """A tensor's numbers; sizes that tract reckons with are its own kind of integers."""
        try:
            found: NDArray[Any] = tensor.to_numpy()
        except self._tract.TractError:
            found = tensor.convert_to(self._tract.DatumType.I64).to_numpy()
        return found


def open_engine(source: Source, options: Options) -> Tract:
    """Load a model, see `runtimes.session.Runtime`."""
    return Tract(source, options)


def _said(err: Exception) -> str:
    """What tract says, in one line, without its stack."""
    return " ".join(str(err).partition("Stack backtrace")[0].split())
