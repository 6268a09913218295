"""What the records of steps share: decisions read from a file's tensors of one image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from ltmp_export.plan import faces, pairing
from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.plan.step import Step

if TYPE_CHECKING:
    from onnx import ModelProto

BOOL, INT64 = int(TensorProto.BOOL), int(TensorProto.INT64)
SIMILARITY = "similarity"
IMPORTANCE, MERGED_IMPORTANCE = "importance", "merged_importance"
PROTECTED = np.array([-np.inf], np.float32)  # a source's similarity that takes no part in matching

HIDDEN = "hidden"  # among a step's own tensors, the one of `hidden`
NOWHERE = -1  # of a token that no token is made of

Places = NDArray[np.int64]


class Words(NamedTuple):
    """What a person reads of a step's decisions.

    Attributes:
        taken: What the file does to a token that it chooses and the reference does not.
        left: What it does to one that the reference alone chooses.
        score: What the decision goes by.
        stories: What is told of a token by these words.
    """

    taken: str
    left: str
    score: str
    stories: Mapping[str, str]

    @property
    def saved(self) -> tuple[str, str]:
        """What arrays of a decision and of its scores are called."""
        return self.taken, self.score.replace(" ", "_")


MERGES = Words(
    "merged",
    "not merged",
    SIMILARITY,
    {
        "merged": "is merged by the file, not by the reference",
        "not merged": "is merged by the reference, not by the file",
    },
)
KEEPS = Words(
    "kept",
    "pruned",
    IMPORTANCE,
    {
        "kept": "is kept by the file, pruned by the reference",
        "pruned": "is pruned by the file, kept by the reference",
    },
)


SELECTS = Words(
    "kept",
    "not kept",
    "score",
    {
        "kept": "is kept by the file, not by the reference",
        "not kept": "is kept by the reference, not by the file",
    },
)


class Decided(NamedTuple):
    """Whom a file chose in one step, as `steps.tokens.Choice` tells it to the reference.

    Attributes:
        chosen: [n] bool, the sources that merge, or the tokens that stay.
        partner: [n] into whom those merge who do; None where nobody does.
        order: Rows of the scores in the order they then stand in; None: their own.
        merges: [n] bool, who has a partner that matters; None: those chosen.
    """

    chosen: NDArray[np.bool_]
    partner: Places | None = None
    order: Places | None = None
    merges: NDArray[np.bool_] | None = None


class Read(NamedTuple):
    """What a file decided in one step about one image.

    Attributes:
        choice: The decision.
        score: [n] what it went by.
        left: The slots of the tokens that remain.
        went: [tokens] the place, among those that remain, of what each token is part of then; -1 of
            one that is part of none. None where the decisions do not tell.
    """

    choice: Decided
    score: NDArray[np.float32]
    left: Places
    went: Places | None


class Recorded(Protocol):
    """What a step's face `record` gives.

    Attributes:
        TENSORS: The tensors of a block that tell what it decided, with their `onnx.TensorProto`
            types, beside its scores.
        WORDS: What a person reads of it.
    """

    TENSORS: dict[str, int]
    WORDS: Words

    def score_name(self, step: Any, resized: bool) -> str:
        """The tensor of a step's scores; `resized`: whether a step before it merged tokens."""

    def read(
        self,
        step: Any,
        own: Mapping[str, NDArray[Any]],
        slot: Places,
        count: int,
        protected: int,
    ) -> Read:
        """What a file decided about one image.

        Args:
            step: The step.
            own: Its `tensors` and "score" of this image.
            slot: The slot of each token before it.
            count: Tokens counted after the block.
            protected: How many tokens in front never go.

        Raises:
            ValueError: The decisions are no decisions about so many tokens.
        """


def hidden(step: Step, model: ModelProto, scope: str) -> str | None:
    """A tensor with weights of a step that a file does not name; None where nothing is missing.

    Args:
        step: The step.
        model: The file's graph.
        scope: What the names of its block begin with.
    """
    find = getattr(of(step), "hidden", None)
    return None if find is None else find(step, model, scope)


def mixing(step: Step, model: ModelProto, scope: str) -> str | None:
    """The tensor by which a step mixes tokens; None where it does not, or a file has none."""
    find = getattr(of(step), "mixing", None)
    return None if find is None else find(step, model, scope)


def shares(step: Step, values: NDArray[Any], protected: int) -> NDArray[np.float64]:
    """What of the tokens before a step that mixes is in each token behind it.

    Args:
        step: The step.
        values: Of one image, the tensor of `mixing`.
        protected: How many tokens in front pass by.

    Returns:
        [tokens, tokens before], rows in front in neither.
    """
    found: NDArray[np.float64] = faces.face(type(step), "record").shares(step, values, protected)
    return found


def went(step: Step, tokens: int, protected: int) -> Places:
    """Where tokens go of which a step keeps the same of every image; see `Read.went`."""
    places: Places = faces.face(type(step), "record").went(step, tokens, protected)
    return places


def of(step: Step) -> Recorded:
    """The face `record` of a step.

    Raises:
        InputError: It has none.
    """
    return cast(Recorded, faces.face(type(step), "record"))


def tensors(step: Step) -> dict[str, int]:
    """The tensors of a block that tell what this step decided, with their types."""
    return {n: kind for n, kind in of(step).TENSORS.items() if n not in step.unrecorded}


def by_similarity(step: Step, resized: bool) -> str:
    """The tensor of the scores of a step that merges; `resized` as in `by_importance`."""
    return SIMILARITY


def by_importance(step: Step, resized: bool) -> str:
    """The tensor of importance; `resized`: whether a step before it in the block merged tokens."""
    return MERGED_IMPORTANCE if resized else IMPORTANCE


def by_class_attention(step: Step, resized: bool) -> str:
    """The tensor of the class token's attention, which no merge changes."""
    return CLASS_ATTENTION


def of_sources(score: NDArray[np.float32], sources: int, protected: int) -> NDArray[np.float32]:
    """Best similarities of all even rows, from those of the sources behind the protected ones.

    Raises:
        ValueError: There are fewer.
    """
    if len(score) < sources:
        raise ValueError(f"{len(score)} similarities of {sources} sources")
    return np.concatenate([PROTECTED.repeat(pairing.protected_sources(protected)), score[:sources]])


def selected(order: NDArray[Any], tokens: int) -> Places:
    """Where tokens go of which some stay, these rows in this order; see `Read.went`."""
    went = np.full(tokens, NOWHERE)
    went[order] = np.arange(len(order))
    return went


def paired(tokens: int, protected: int, stays: NDArray[Any], partner: NDArray[Any]) -> Places:
    """Where tokens go of which sources merge into destinations; see `Read.went`.

    Args:
        tokens: N, before it.
        protected: How many stand in front.
        stays: Sources that do not merge, in their order, among those that take part.
        partner: Of every source a destination, among those that take part.
    """
    sources = np.arange(pairing.first_source(protected), tokens, 2)
    destinations = np.arange(pairing.first_destination(protected), tokens, 2)
    went = np.arange(tokens)
    went[destinations] = protected + len(stays) + np.arange(len(destinations))
    into = np.full(len(sources), NOWHERE)
    merging = np.setdiff1d(np.arange(len(sources)), stays)
    into[merging] = went[destinations[partner[merging]]]
    into[stays] = protected + np.arange(len(stays))
    went[sources] = into
    return went


def ranked(own: Mapping[str, NDArray[Any]], slot: Places, kept: int, protected: int) -> Read:
    """A step that keeps the first patch tokens of its `ranking`, in that order.

    Raises:
        ValueError: It ranks one twice, or one beyond them.
    """
    tokens, ranking = len(slot), own["ranking"]
    require_ranking(ranking, tokens - protected)
    order = np.append(np.arange(protected), protected + ranking[:kept])
    chosen = np.zeros(tokens, bool)
    chosen[order] = True
    went = selected(order, tokens)
    return Read(Decided(chosen, order=order), own["score"][slot], np.arange(len(order)), went)


def require_ranking(ranking: NDArray[Any], patches: int) -> None:
    """Check that a ranking has each of so many patch tokens once.

    Raises:
        ValueError: It has not.
    """
    if sorted(ranking.tolist()) != list(range(patches)):
        raise ValueError(f"a ranking of {patches} patch tokens has one twice, or one beyond them")


def require_within(rows: NDArray[Any], most: int, tokens: int) -> None:
    """Check that rows are those of tokens.

    Raises:
        ValueError: One is not.
    """
    if (rows >= most).any() or (rows < 0).any():
        raise ValueError(f"a decision about {tokens} tokens takes a row beyond them")
