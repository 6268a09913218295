"""A block's steps in ONNX, one after the other, each by the face that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ltmp_export.graph import packed
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.packed import Candidates, Reduced
from ltmp_export.graph.slots import Slots
from ltmp_export.plan.faces import face
from ltmp_export.plan.plan import demands
from ltmp_export.plan.step import Step


def decide(g: GraphBuilder, steps: Sequence[Step], tokens: Candidates) -> Reduced:
    """Take steps on images with rows of their own number.

    Raises:
        InputError: A step has no such form.
    """
    for place, step in enumerate(steps):
        tokens = replace(tokens, needed=demands(steps[place + 1 :]))
        tokens = face(type(step), "packed").write(g, step, tokens)
    return packed.finish(g, tokens)


def reduce(g: GraphBuilder, steps: Sequence[Step], tokens: Slots) -> tuple[Slots, ...]:
    """Take steps on images with the same number of slots.

    Returns:
        What the first was given, and what each made of it; the last is what is left.

    Raises:
        InputError: A step has no such form.
    """
    stages = [tokens]
    for step in steps:
        stages.append(face(type(step), "slots").write(g, step, stages[-1]))
    return tuple(stages)


def restored(g: GraphBuilder, steps: Sequence[Step], stages: Sequence[Slots], left: Slots) -> Slots:
    """Tokens behind a block, where steps restore what they took away.

    Args:
        g: Where to write.
        steps: The steps.
        stages: As `reduce` gave them.
        left: What the block made of the last.
    """
    for step, given, made in reversed(list(zip(steps, stages, stages[1:], strict=False))):
        if step.restores:
            left = face(type(step), "slots").restore(g, step, given, made, left)
    return left
