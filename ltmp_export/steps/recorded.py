"""What the records of steps share: decisions read from a file's tensors of one image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from ltmp_export.plan import faces
from ltmp_export.plan.pairing import protected_sources
from ltmp_export.plan.scores import CLASS_ATTENTION
from ltmp_export.plan.step import Step
from ltmp_export.steps.tokens import Choice

BOOL, INT64 = int(TensorProto.BOOL), int(TensorProto.INT64)
SIMILARITY = "similarity"
IMPORTANCE, MERGED_IMPORTANCE = "importance", "merged_importance"
PROTECTED = np.array([-np.inf], np.float32)  # a source's similarity that takes no part in matching

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


class Read(NamedTuple):
    """What a file decided in one step about one image.

    Attributes:
        choice: The decision.
        score: [n] what it went by.
        left: The slots of the tokens that remain.
    """

    choice: Choice
    score: NDArray[np.float32]
    left: Places


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
    return np.concatenate([PROTECTED.repeat(protected_sources(protected)), score[:sources]])


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
