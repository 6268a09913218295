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
from numpy.typing import NDArray
from onnx import TensorProto

from ltmp_export.plan.geometry import Geometry
from ltmp_export.plan.linears import Linear
from ltmp_export.plan.plan import Plan, resizes
from ltmp_export.plan.step import Step
from ltmp_export.precision import record as precision_record
from ltmp_export.precision.eager import Taken
from ltmp_export.precision.formats import Precision
from ltmp_export.steps import recorded
from ltmp_export.steps.tokens import Choice

EMBEDDED = "embed/tokens"
FLOAT, INT64 = int(TensorProto.FLOAT), int(TensorProto.INT64)

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
    for block, steps in enumerate(plan.blocks):
        tensors = {"count": INT64, "tokens": FLOAT}
        for step, score in _scored(steps):
            tensors |= {score: FLOAT} | recorded.tensors(step)
        last = block == len(plan.blocks) - 1  # no later block needs its sizes; the logits tell
        if resizes(steps) and not last:
            tensors["size"] = FLOAT
        found |= {f"block_{block:02d}/{name}": kind for name, kind in tensors.items()}
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


def _scored(steps: tuple[Step, ...]) -> Iterator[tuple[Step, str]]:
    """Each step with the name of the scores it decides by."""
    for place, step in enumerate(steps):
        yield step, recorded.of(step).score_name(step, resizes(steps[:place]))


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
        fresh: See `fresh`.
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
    standing = np.full(images, tokens)  # [B] tokens between two blocks
    rows = embedded[image * tokens : (image + 1) * tokens] if packed else embedded[image]
    for block, steps in enumerate(plan.blocks):
        scope = f"block_{block:02d}/"
        within = {k.removeprefix(scope): v for k, v in tensors.items() if k.startswith(scope)}
        own = {name: array for name, array in within.items() if "/" not in name}
        if block in fresh:
            standing = np.full_like(standing, fresh[block])
        given = standing
        if block in plan.before:
            made = plan.before[block].after(int(standing[image]), protected)
            standing = standing if made is None else np.full_like(standing, made)
        received = standing
        entering.append(received)
        tokens = int(standing[image])
        try:
            _require_ranks(own, plan.static)
            behind = plan.behind(block, given, received, own["count"])
            place = image, tokens, int(behind[image]), protected
            blocks.append(_read_block(steps, own, *place))
        except (ValueError, IndexError) as err:
            broken = str(err)
            break
        leaving.append(own["count"])
        standing = behind
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


def _read_block(
    steps: tuple[Step, ...],
    own: Mapping[str, NDArray[Any]],
    image: int,
    tokens: int,
    behind: int,
    protected: int,
) -> BlockRecord:
    """One image's share of a block's tensors; `behind`: tokens that stand behind the block.

    Raises:
        ValueError: The decisions are no decisions about so many tokens.
        IndexError: There are fewer slots than tokens.
    """
    slot = np.arange(tokens)  # padded slot of each token
    records = []
    for step, scores in _scored(steps):
        face = recorded.of(step)
        arrays = {name: own[name][image] for name in recorded.tensors(step)}
        arrays["score"] = own[scores][image]
        found = face.read(step, arrays, slot, own["count"][image], protected)
        records.append(StepRecord(found.choice, found.score))
        slot = found.left
    count = own["count"]
    if count[image] != len(slot):
        raise ValueError(f"{count[image]} tokens are counted, {len(slot)} left by the decisions")
    if own["tokens"].ndim == 3:  # slots, the first of them living
        rows, size = own["tokens"][image][:behind], own.get("size")
        return BlockRecord(tuple(records), rows, None if size is None else size[image][: len(slot)])
    if len(own["tokens"]) != count.sum():
        raise ValueError(f"{len(own['tokens'])} rows of tokens for counts of {count.sum()}")
    start = int(count[:image].sum())
    place = slice(start, start + len(slot))
    size = None
    if "size" in own:
        size = own["size"][place]
        if len(size) != len(slot):
            raise ValueError(f"{len(own['size'])} sizes for {len(own['tokens'])} tokens")
    return BlockRecord(tuple(records), own["tokens"][place], size)
