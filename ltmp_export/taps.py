"""What a file computed for one image, read from its named tensors and freed of the batch's padding.

The names are written by `reduction`, `ragged` and `rewrite`; a tapped session
(`runtime.TappedSession`) hands them out in memory, the file stays as it is. Shapes: B images,
N tokens of an image before a step, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from ltmp_export.plan import Merge, Plan, Step
from ltmp_export.tokens import Choice

EMBEDDED = "embed/tokens"
FLOAT, INT64, BOOL = (int(t) for t in (TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL))

CLASS_TOKEN = np.array([-np.inf], np.float32)  # its similarity: it takes no part in matching

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
        logits: [classes].
        embedded: [N, C] tokens before the first block.
        blocks: As far as their decisions are decisions.
        counts: Tokens after each of these blocks, as the file counts them.
        broken: Why the block after the last one here holds no decisions, else an empty string.
    """

    logits: NDArray[np.float32]
    embedded: NDArray[np.float32]
    blocks: tuple[BlockRecord, ...]
    counts: tuple[int, ...]
    broken: str = ""

    def choices(self) -> Choices:
        """The decisions alone, as the reference can be made to take them."""
        return tuple(tuple(step.choice for step in block.steps) for block in self.blocks)


def names(plan: Plan) -> dict[str, int]:
    """Names and element types (`onnx.TensorProto`) of the tensors a `Record` is read from."""
    found = {EMBEDDED: FLOAT}
    for block, steps in enumerate(plan.blocks):
        kinds = {"count": INT64, "tokens": FLOAT}
        for step, score in _scored(steps):
            kinds[score] = FLOAT
            kinds |= (
                {"merged": BOOL, "partner": INT64} if isinstance(step, Merge) else {"kept": BOOL}
            )
        if _merges(steps) and block < len(plan.blocks) - 1:  # no later block needs the last sizes
            kinds["size"] = FLOAT
        found |= {f"block_{block:02d}/{name}": kind for name, kind in kinds.items()}
    return found


def thresholds(plan: Plan) -> Iterator[tuple[int, str, str, float]]:
    """Block, kind, name of the stored constant and value of every threshold of a plan."""
    for block, steps in enumerate(plan.blocks):
        for step in steps:
            kind = type(step).__name__.lower()
            yield block, kind, f"block_{block:02d}/{kind}_threshold", step.threshold


def digest(choices: Choices) -> bytes:
    """Equal for equal decisions of one image; the partner of who does not merge decides nothing."""
    taken = []
    for choice in (choice for steps in choices for choice in steps):
        partner = choice.partner
        taken += [choice.chosen] if partner is None else [choice.chosen, partner[choice.chosen]]
    return b"".join(tensor.numpy().tobytes() for tensor in taken)


def _scored(steps: tuple[Step, ...]) -> Iterator[tuple[Step, str]]:
    """Each step with the name of the scores it decides by."""
    importance = "importance"
    for step in steps:
        if isinstance(step, Merge):
            importance = "merged_importance"  # destinations now hold their parts' maximum
            yield step, "similarity"
        else:
            yield step, importance


def _merges(steps: tuple[Step, ...]) -> bool:
    return any(isinstance(step, Merge) for step in steps)


def read(plan: Plan, tensors: Mapping[str, NDArray[Any]], image: int, tokens: int) -> Record:
    """One image of a batch.

    Args:
        plan: The steps of each block.
        tensors: The tapped tensors of the batch, and its logits.
        image: Row of the batch.
        tokens: Tokens before the first block.
    """
    blocks, counts, broken = [], [], ""
    embedded = tensors[EMBEDDED]
    rows = embedded[image * tokens : (image + 1) * tokens] if embedded.ndim == 2 else embedded
    for block, steps in enumerate(plan.blocks):
        prefix = f"block_{block:02d}/"
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        try:
            _require_ranks(own)
            blocks.append(_read_block(steps, own, image, tokens))
        except (ValueError, IndexError) as err:
            broken = str(err)
            break
        tokens = int(own["count"][image])
        counts.append(tokens)
    return Record(tensors["logits"][image], rows, tuple(blocks), tuple(counts), broken)


def _require_ranks(own: Mapping[str, NDArray[Any]]) -> None:
    """Check that tensors of a block have as many dimensions as they must.

    Raises:
        ValueError: One has not.
    """
    for name, tensor in own.items():
        expected = 1 if name in ("count", "size") else 2
        if tensor.ndim != expected:
            raise ValueError(f"{name} has the shape {tensor.shape}; expected {expected} dimensions")


def _read_block(
    steps: tuple[Step, ...], own: Mapping[str, NDArray[Any]], image: int, tokens: int
) -> BlockRecord:
    """One image's share of a block's tensors.

    Raises:
        ValueError: The decisions are no decisions about so many tokens.
        IndexError: There are fewer slots than tokens.
    """
    slot = np.arange(tokens)  # padded slot of each token
    taken = []
    for step, scores in _scored(steps):
        score = own[scores][image]
        if isinstance(step, Merge):
            merged, partner = own["merged"][image], own["partner"][image]
            choice, slot = _merge_choice(merged, partner, len(slot))
            if len(score) < len(choice.chosen) - 1:
                raise ValueError(f"{len(score)} similarities of {len(choice.chosen) - 1} sources")
            score = np.concatenate([CLASS_TOKEN, score[: len(choice.chosen) - 1]])
            taken.append(StepRecord(choice, score))
        else:
            chosen = own["kept"][image][slot]
            if not chosen[0]:
                raise ValueError("the class token is pruned")
            taken.append(StepRecord(Choice(torch.from_numpy(chosen)), score[slot]))
            slot = slot[chosen]
    count = own["count"]
    if count[image] != len(slot):
        raise ValueError(f"{count[image]} tokens are counted, {len(slot)} left by the decisions")
    if len(own["tokens"]) != count.sum():
        raise ValueError(f"{len(own['tokens'])} rows of tokens for counts of {count.sum()}")
    start = int(count[:image].sum())
    rows = slice(start, start + len(slot))
    size = None
    if "size" in own:
        size = own["size"][rows]
        if len(size) != len(slot):
            raise ValueError(f"{len(own['size'])} sizes for {len(own['tokens'])} tokens")
    return BlockRecord(tuple(taken), own["tokens"][rows], size)


def _merge_choice(
    merged: NDArray[Any], partner: NDArray[Any], tokens: int
) -> tuple[Choice, NDArray[Any]]:
    """A merge of so many tokens in slots 0, 1, …; and the slots of those that remain.

    A file decides about the sources behind the class token, slots 2, 4, …; after the merge its
    slots are the class token, these, and slots 1, 3, ….
    """
    sources, destinations = (tokens - 1) // 2, tokens // 2
    if min(len(merged), len(partner)) < sources:
        found = min(len(merged), len(partner))
        raise ValueError(f"a merge of {tokens} tokens decides about {found} sources only")
    chosen, target = merged[:sources], partner[:sources]
    if (target[chosen] >= destinations).any() or (target[chosen] < 0).any():
        raise ValueError(f"a merge of {tokens} tokens takes a row beyond them")
    slot = np.concatenate(
        [[0], 1 + np.flatnonzero(~chosen), 1 + len(merged) + np.arange(destinations)]
    )
    chosen, target = np.append(False, chosen), np.append(0, target)  # the class token stays
    return Choice(torch.from_numpy(chosen), torch.from_numpy(target)), slot
