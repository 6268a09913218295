"""A block's steps in ONNX, one after the other, each by the face that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from ltmp_export.graph import owners, packed, single
from ltmp_export.graph.builder import GraphBuilder, Name
from ltmp_export.graph.packed import Candidates, Reduced
from ltmp_export.graph.single import Single
from ltmp_export.graph.slots import Slots
from ltmp_export.plan.faces import face
from ltmp_export.plan.plan import demands
from ltmp_export.plan.step import Step

T = TypeVar("T", Candidates, Single)


def decide(g: GraphBuilder, steps: Sequence[Step], tokens: Candidates) -> Reduced:
    """Take steps on images with rows of their own number.

    Raises:
        InputError: A step has no such form.
    """
    return packed.finish(g, _taken(g, steps, tokens, "packed"))


def of_one(g: GraphBuilder, steps: Sequence[Step], tokens: Single) -> Single:
    """Take steps on the tokens of one image.

    Raises:
        InputError: A step has no such form.
    """
    return single.settled(g, _taken(g, steps, tokens, "single"))


def _taken(g: GraphBuilder, steps: Sequence[Step], tokens: T, name: str) -> T:
    """Tokens after steps by a face, each step told which scores those after it demand."""
    for place, step in enumerate(steps):
        tokens = replace(tokens, needed=demands(steps[place + 1 :]))
        tokens = face(type(step), name).write(g, step, tokens)
    return tokens


def reduce(g: GraphBuilder, steps: Sequence[Step], tokens: Slots) -> Slots:
    """Take steps on images with the same number of slots.

    Raises:
        InputError: A step has no such form.
    """
    for step in steps:
        given = owners.labelled(g, tokens)
        left = face(type(step), "slots").write(g, step, given)
        tokens = owners.through_slots(g, given, left, step.drops)
    return tokens


def restore(g: GraphBuilder, step: Step, given: Slots, made: Slots, left: Slots) -> Slots:
    """Tokens behind a block whose step restores what it took away, see `steps.tokens.restore`."""
    restored: Slots = face(type(step), "slots").restore(g, step, given, made, left)
    return restored


def along(g: GraphBuilder, step: Step, left: Slots, x: Name, width: int) -> Name:
    """What lies where the tokens lay [B, N, width] → [B, n, width], see `steps.tokens.along`."""
    reduced: Name = face(type(step), "slots").along(g, step, left, x, width)
    return reduced
