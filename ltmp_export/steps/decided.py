"""What a file decided about one image, block by block, read from its named tensors.

The names are written by the steps' faces, `graph.packed`, `graph.ragged` and `lower`; a tapped
session (`runtimes.recording.TappedSession`) hands them out in memory, the file stays as it is.
Shapes: B images of a batch, N tokens of an image before a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.plan import Plan, resizes
from ltmp_export.plan.step import Step
from ltmp_export.steps import recorded
from ltmp_export.steps.recorded import HIDDEN, Places, Read

FLOAT, INT64 = int(TensorProto.FLOAT), int(TensorProto.INT64)
COUNT = "count"


@dataclass(frozen=True)
class Block:
    """A block of a batch, before anything is read of it.

    Attributes:
        number: Which.
        steps: Of the plan.
        tensors: Its own, of the batch, by the names that they have in the block.
        given: [B] tokens before it, and before what stands in front of it.
        received: [B] tokens that its attention sees.
        entering: Whether the first of the steps stands before the block.
        protected: How many of them stand in front and never go.
    """

    number: int
    steps: tuple[Step, ...]
    tensors: Mapping[str, NDArray[Any]]
    given: Places
    received: Places
    protected: int
    entering: bool = False

    def read(self, image: int) -> tuple[Read, ...]:
        """What its steps decided about an image.

        Raises:
            ValueError: The decisions are no decisions about so many tokens.
            IndexError: There are fewer slots than tokens.
        """
        own, counted = self.tensors, self.tensors[COUNT][image]
        seen = self.given if self.entering else self.received
        slot = np.arange(int(seen[image]))  # padded slot of each token
        found, fed = [], len(slot)  # what the MLP runs on
        for step, scores in scored(self.steps):
            arrays = {name: own[name][image] for name in recorded.tensors(step)}
            arrays["score"] = own[scores][image]
            if HIDDEN in own:
                arrays[HIDDEN] = own[HIDDEN][image]
            read = recorded.of(step).read(step, arrays, slot, counted, self.protected)
            found.append(read)
            slot = read.left
            fed = fed if step.late else len(slot)
        if counted != fed:
            raise ValueError(f"{counted} tokens are counted, {fed} left by the decisions")
        return tuple(found)


def scope(block: int) -> str:
    """What the names of a block's tensors begin with."""
    return f"block_{block:02d}/"


def scored(steps: tuple[Step, ...]) -> Iterator[tuple[Step, str]]:
    """Each step with the name of the scores it decides by."""
    for place, step in enumerate(steps):
        yield step, recorded.of(step).score_name(step, resizes(steps[:place]))


def names(plan: Plan) -> dict[str, int]:
    """Names and element types (`onnx.TensorProto`) of the tensors that decisions are read from."""
    found: dict[str, int] = {}
    for block in range(len(plan.blocks)):
        steps = plan.deciding(block)
        tensors = {COUNT: INT64}
        for step, score in scored(steps):
            tensors |= {score: FLOAT} | recorded.tensors(step)
        found |= {f"{scope(block)}{name}": kind for name, kind in tensors.items()}
    return found


def hidden(plan: Plan, model: ModelProto) -> dict[str, str]:
    """By the name that it has here, a tensor of each step that a file does not name."""
    found = {}
    for block in range(len(plan.blocks)):
        for step in plan.deciding(block):
            name = recorded.hidden(step, model, scope(block))
            if name is not None:
                found[f"{scope(block)}{HIDDEN}"] = name
    return found


def fresh(geometry: Geometry, plan: Plan) -> dict[int, int]:
    """The tokens of an image that enter blocks before which something makes others of them.

    A network in stages has such blocks; its plans are `counted`.
    """
    if not plan.counted:
        return {}
    rows = geometry.rows(plan)
    left = [plan.behind(block, one.given, one.received, one.kept) for block, one in enumerate(rows)]
    return {
        block: one.given for block, one in enumerate(rows) if block and one.given != left[block - 1]
    }


def blocks(
    plan: Plan,
    tensors: Mapping[str, NDArray[Any]],
    image: int,
    images: int,
    tokens: int,
    protected: int = 1,
    fresh: Mapping[int, int] = MappingProxyType({}),
) -> Iterator[Block]:
    """The blocks of a file; the next one is reached by what the last one counts.

    Args:
        plan: The steps of each block.
        tensors: The tapped tensors of the batch.
        image: Row of the batch that numbers of tokens are asked for.
        images: B.
        tokens: Before the first block.
        protected: How many of them stand in front and never go.
        fresh: See `fresh`.
    """
    standing = np.full(images, tokens)  # [B] tokens between two blocks
    for block, inside in enumerate(plan.blocks):
        steps = plan.deciding(block)
        here = scope(block)
        within = {k.removeprefix(here): v for k, v in tensors.items() if k.startswith(here)}
        own = {name: array for name, array in within.items() if "/" not in name}
        if block in fresh:
            standing = np.full_like(standing, fresh[block])
        given = standing
        if block in plan.before:
            made = plan.before[block].after(int(standing[image]), protected)
            standing = standing if made is None else np.full_like(standing, made)
        entering = len(steps) > len(inside)
        yield Block(block, steps, own, given, standing, protected, entering)
        standing = plan.behind(block, given, standing, own[COUNT])
