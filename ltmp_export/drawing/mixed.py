"""What of each patch is in each token, where a patch may be part of several.

That is what merging makes of them, read from the tensors by which a file mixes; attention mixes
them, too, and is not counted. Letters: P patches of an image, M tokens behind the rows in front.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from ltmp_export.errors import InputError
from ltmp_export.plan.outputs import DENSE
from ltmp_export.runtimes.recording import TappedSession
from ltmp_export.steps import decided, recorded

if TYPE_CHECKING:
    from ltmp_export.model_file.model import ExportedModel
    from ltmp_export.plan.geometry import Size
    from ltmp_export.plan.step import Step


@dataclass(frozen=True)
class Mixture:
    """The tokens that a step made of an image.

    Attributes:
        block: The step is in this block, or in front of it; the number of blocks: before the head.
        place: The same in words.
        grid: Rows and columns of the patches.
        shares: [M, P] of each token what is in it of each patch.
    """

    block: int
    place: str
    grid: Size
    shares: NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "block": self.block,
            "place": self.place,
            "tokens": len(self.shares),
            "shares": self.shares.round(5).tolist(),
        }


@dataclass(frozen=True)
class _Mixing:
    block: int
    place: str
    step: Step
    name: str


class Mixtures:
    """A file, opened to be asked what is in its tokens.

    Args:
        exported: The file.
        threads: Threads of an operator; all processors by default.

    Attributes:
        blocks: Those with a step that mixes, see `Mixture.block`.
        remarks: What a person should know of them: nothing.

    Raises:
        InputError: Nothing is mixed, or the network has no patches of its own.
        ExportError: The runtime does not load the file.
    """

    def __init__(self, exported: ExportedModel, *, threads: int | None = None) -> None:
        path, geometry = exported.path, exported.geometry
        if DENSE not in geometry.outputs:
            raise InputError(
                f"{path}: a {geometry.kind} network makes other tokens of its tokens from stage to "
                "stage, so that nothing tells what of which patch is in them; give a file of a ViT"
            )
        self._steps = tuple(_steps(exported))
        if not self._steps:
            raise InputError(
                f"{path}: family {exported.plan.family} mixes no tokens, each patch is part of one "
                "at most; drop --heat"
            )
        self._exported = exported
        self.remarks: tuple[str, ...] = ()
        self.blocks = tuple(dict.fromkeys(one.block for one in self._steps))
        stored = {tensor.name: tensor for tensor in exported.proto.graph.initializer}
        self._constants = {
            one.name: numpy_helper.to_array(stored[one.name])
            for one in self._steps
            if one.name in stored
        }
        taps = {one.name: decided.FLOAT for one in self._steps if one.name not in stored}
        self._session = TappedSession(exported.proto, taps, threads=threads, quiet=True)

    @property
    def grid(self) -> Size:
        """Rows and columns of the patches."""
        return self._exported.vit.grid

    def of(self, pixels: NDArray[np.float32]) -> tuple[Mixture, ...]:
        """Of one image [channels, H, W], what is in the tokens of each place.

        Raises:
            ExportError: The runtime fails on the image.
        """
        given: dict[str, NDArray[Any]] = {
            name: values[0] for name, values in self._session.run(pixels[None]).items()
        }
        given |= self._constants
        geometry, grid = self._exported.geometry, self.grid
        found = []
        patches = np.eye(geometry.tokens - geometry.prefix)
        for one in self._steps:
            made = recorded.shares(one.step, given[one.name], geometry.prefix) @ patches
            found.append(Mixture(one.block, one.place, grid, made))
            patches = patches if one.step.restores else made
        return tuple(found)


def mixes(exported: ExportedModel) -> bool:
    """Whether a file makes tokens of many patches each, so that `Mixtures` can tell of it."""
    return DENSE in exported.geometry.outputs and any(_steps(exported))


def _steps(exported: ExportedModel) -> Iterator[_Mixing]:
    """The steps that mix, in their order."""
    plan, depth = exported.plan, len(exported.plan.blocks)
    for block in range(depth + 1):
        in_front = [plan.before[block]] if block in plan.before else []
        place = "before the head" if block == depth else f"before block {block}"
        inside = [] if block == depth else [*plan.blocks[block]]
        for step in (*in_front, *inside):
            name = recorded.mixing(step, exported.proto, decided.scope(block))
            if name is not None:
                yield _Mixing(block, place if step in in_front else f"in block {block}", step, name)
