"""What a file computed for one image, read from its named tensors and freed of the batch's padding.

The names are written by the steps' faces, `graph.packed`, `graph.ragged` and `vit.lower`; a tapped
session (`runtimes.recording.TappedSession`) hands them out in memory, the file stays as it is.
Shapes: B images, N tokens of an image before a step, C channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ltmp_export.plan.linears import Linear
from ltmp_export.plan.plan import Plan, resizes
from ltmp_export.precision import record as precision_record
from ltmp_export.precision.eager import Taken
from ltmp_export.precision.formats import Precision
from ltmp_export.steps import decided
from ltmp_export.steps.decided import FLOAT, Block
from ltmp_export.steps.recorded import Decided
from ltmp_export.steps.tokens import Choice

EMBEDDED = "embed/tokens"

Choices = tuple[tuple[Choice, ...], ...]


@dataclass(frozen=True)
class StepRecord:
    """One step of a block, as the file took it.

    Attributes:
        choice: Who merges into whom, or who stays.
        score: Best similarity of each source [ceil(N/2)], or importance of each token [N].
    """

    choice: Choice
    score: NDArray[np.float32]


@dataclass(frozen=True)
class BlockRecord:
    """One block of a file.

    Attributes:
        steps: In the order of the plan.
        tokens: [n, C] after the block.
        size: [n] patches per token, or None where no later block needs it.
    """

    steps: tuple[StepRecord, ...]
    tokens: NDArray[np.float32]
    size: NDArray[np.float32] | None


@dataclass(frozen=True)
class Record:
    """One image through a file.

    Attributes:
        given: What the file gives, by the names of `plan.outputs`.
        embedded: [N, C] tokens before the first block.
        blocks: As far as their decisions are decisions.
        counts: Tokens after each of these blocks, as the file counts them.
        broken: Why the block after the last one here holds no decisions, else an empty string.
        taken: What int8 layers were given, by path.
    """

    given: Mapping[str, NDArray[Any]]
    embedded: NDArray[np.float32]
    blocks: tuple[BlockRecord, ...]
    counts: tuple[int, ...]
    broken: str = ""
    taken: Mapping[str, Taken] = field(default_factory=dict)

    def choices(self) -> Choices:
        """The decisions alone, as the reference can be made to take them."""
        return tuple(tuple(step.choice for step in block.steps) for block in self.blocks)


def names(
    plan: Plan, precision: Precision | None = None, linears: Iterable[Linear] = ()
) -> dict[str, int]:
    """Names and element types (`onnx.TensorProto`) of the tensors a `Record` is read from."""
    found = {EMBEDDED: FLOAT} | precision_record.names(precision or Precision(), linears)
    found |= decided.names(plan)
    for block, steps in enumerate(plan.blocks):
        found[f"{decided.scope(block)}tokens"] = FLOAT
        last = block == len(plan.blocks) - 1  # no later block needs its sizes; the logits tell
        if resizes(steps) and not last:
            found[f"{decided.scope(block)}size"] = FLOAT
    return found


def thresholds(plan: Plan) -> Iterator[tuple[int, str, str, float]]:
    """Block, action, name of the stored constant and value of every threshold of a plan."""
    for block, steps in enumerate(plan.blocks):
        for step in steps:
            if step.learned is not None:
                name = f"block_{block:02d}/{step.action}_threshold"
                yield block, step.action, name, step.learned


def digest(choices: Choices, taken: Mapping[str, Taken] | None = None) -> bytes:
    """Equal for equal decisions of one image; the partner of who does not merge decides nothing.

    Args:
        choices: The decisions.
        taken: What int8 layers were given, where that counts as well.
    """
    parts = []
    for choice in (choice for steps in choices for choice in steps):
        partner, order = choice.partner, choice.order
        parts += [choice.chosen] if partner is None else [choice.chosen, partner[choice.moved]]
        parts += [] if order is None else [order]
    found = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in parts))
    for one in (taken or {}).values():
        found.update(one.values.tobytes())
    return found.digest()


def read(
    plan: Plan,
    tensors: Mapping[str, NDArray[Any]],
    image: int,
    tokens: int,
    protected: int = 1,
    precision: Precision | None = None,
    linears: Iterable[Linear] = (),
    fresh: Mapping[int, int] = MappingProxyType({}),
    gives: Iterable[str] = (),
) -> Record:
    """One image of a batch.

    Args:
        plan: The steps of each block.
        tensors: The tapped tensors of the batch, and what the file gives.
        image: Row of the batch.
        tokens: Tokens before the first block.
        protected: How many of them stand in front and never go.
        precision: Of the file.
        linears: The layers that may round what they are given.
        fresh: See `decided.fresh`.
        gives: Names of what the file gives.
    """
    blocks, counts, broken = [], [], ""
    taken: Mapping[str, Taken] = {}
    pooled: NDArray[np.int64] | None = None
    entering: list[NDArray[np.int64]] = []
    leaving: list[NDArray[np.int64]] = []
    embedded = tensors[EMBEDDED]
    packed = embedded.ndim == 2
    images = len(embedded) // tokens if packed else len(embedded)
    standing = np.full(images, tokens)
    rows = embedded[image * tokens : (image + 1) * tokens] if packed else embedded[image]
    for block in decided.blocks(plan, tensors, image, images, tokens, protected, fresh):
        own = block.tensors
        entering.append(block.received)
        try:
            _require_ranks(own, plan.static)
            standing = plan.behind(block.number, block.given, block.received, own["count"])
            blocks.append(_read_block(block, image, int(standing[image])))
        except (ValueError, IndexError) as err:
            broken = str(err)
            break
        leaving.append(own["count"])
        counts.append(int(own["count"][image]))
    else:
        pooled = _pooled(plan, standing, protected)
    try:
        taken = precision_record.read(
            precision or Precision(), linears, tensors, image, entering, leaving, plan.static,
            pooled,
        )  # fmt: skip
    except (ValueError, IndexError) as err:
        broken = broken or str(err)
    found = {name: tensors[name][image] for name in gives}
    return Record(found, rows, tuple(blocks), tuple(counts), broken, taken)


def _pooled(plan: Plan, standing: NDArray[np.int64], prefix: int) -> NDArray[np.int64]:
    """[B] tokens that the head is given, of those behind the last block."""
    step = plan.before.get(len(plan.blocks))
    made = None if step is None else step.after(int(standing[0]), prefix)
    return standing if made is None else np.full_like(standing, made)


def _require_ranks(own: Mapping[str, NDArray[Any]], static: bool) -> None:
    """Check that tensors of a block have as many dimensions as they must.

    Raises:
        ValueError: One has not.
    """
    other = {"count": 1, "size": 2 if static else 1, "tokens": 3 if static else 2}
    for name, tensor in own.items():
        expected = other.get(name, 2)
        if tensor.ndim != expected:
            raise ValueError(f"{name} has the shape {tensor.shape}; expected {expected} dimensions")


def _read_block(block: Block, image: int, behind: int) -> BlockRecord:
    """One image's share of a block's tensors; `behind`: tokens that stand behind the block.

    Raises:
        ValueError: The decisions are no decisions about so many tokens.
        IndexError: There are fewer slots than tokens.
    """
    own, found = block.tensors, block.read(image)
    records = tuple(StepRecord(_choice(read.choice), read.score) for read in found)
    count = own["count"]
    left = int(count[image])
    if own["tokens"].ndim == 3:  # slots, the first of them living
        rows, size = own["tokens"][image][:behind], own.get("size")
        return BlockRecord(records, rows, None if size is None else size[image][:left])
    if len(own["tokens"]) != count.sum():
        raise ValueError(f"{len(own['tokens'])} rows of tokens for counts of {count.sum()}")
    start = int(count[:image].sum())
    place = slice(start, start + left)
    size = None
    if "size" in own:
        size = own["size"][place]
        if len(size) != left:
            raise ValueError(f"{len(own['size'])} sizes for {len(own['tokens'])} tokens")
    return BlockRecord(records, own["tokens"][place], size)


def _choice(read: Decided) -> Choice:
    """A decision as the reference takes it."""
    others = (None if part is None else torch.from_numpy(part) for part in read[1:])
    return Choice(torch.from_numpy(read.chosen), *others)
