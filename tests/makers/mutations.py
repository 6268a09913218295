"""Wrong graphs: each changes one thing in one block of an exported model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.graph.builder import GraphBuilder
from ltmp_export.graph.packed import Candidates
from ltmp_export.graph.ragged import Layout
from ltmp_export.model_file.model import to_onnx
from ltmp_export.steps.merge import packed

Wrong = Callable[..., Any]


@contextmanager
def _in_block(owner: Any, block: int, name: str, wrong: Callable[[Wrong], Wrong]) -> Iterator[None]:
    """Put a wrong version in the place of a function while one block is written."""
    right = getattr(owner, name)

    def either(first: GraphBuilder | Layout, *arguments: Any, **named: Any) -> Any:
        g = first.g if isinstance(first, Layout) else first
        here = g._scope.startswith(f"block_{block:02d}/")
        return (wrong(right) if here else right)(first, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, either)
        yield


def rewritten(owner: Any, name: str, wrong: Callable[[Wrong], Wrong]) -> Mutate:
    def mutate(checkpoint: Checkpoint, block: int) -> onnx.ModelProto:
        with _in_block(owner, block, name, wrong):
            return to_onnx(checkpoint, opset=17)

    return mutate


def _without_size(right: Wrong) -> Wrong:
    return lambda layout, size, largest: right(layout, None, largest)


def _one_head(right: Wrong) -> Wrong:
    return lambda layout, weights, heads: right(layout, layout.g.slice(weights, 1, 0, 1), 1)


def _summed(right: Wrong) -> Wrong:
    return _with_method("reduce", lambda kind, *inputs, **named: (
        ("ReduceSum" if kind == "ReduceMax" else kind, *inputs), named
    ))(_with_method("op", lambda kind, *inputs, **named: (
        ("Add" if kind == "Max" else kind, *inputs), named
    ))(right))  # fmt: skip


def _plain_mean(right: Wrong) -> Wrong:
    """Every member of a mean weighs the same; the sizes stay what they are."""

    def wrong(g: GraphBuilder, tokens: Candidates, *chosen: str) -> tuple[str, str, str]:
        mixing, _, _ = right(g, replace(tokens, size=None), *chosen)
        _, shared, total = right(g, tokens, *chosen)
        return mixing, shared, total

    return wrong


def _odd_sources(right: Wrong) -> Wrong:
    """The first source is slot 1, the first destination slot 2."""
    return _with_method("slice", lambda x, axis, start, *more, step=1: (
        (x, axis, 3 - start if step == 2 else start, *more), {"step": step}
    ))(right)  # fmt: skip


def _destinations_first(right: Wrong) -> Wrong:
    """[class token ; destinations ; sources]."""
    return _with_method("op", lambda kind, *inputs, **named: (
        (kind, *((inputs[0], *inputs[:0:-1]) if kind == "Concat" else inputs)), named
    ))(right)  # fmt: skip


def _with_method(
    name: str, arguments: Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]
) -> Callable[[Wrong], Wrong]:
    """A function whose graph builder gets other arguments in one of its methods."""

    def wrong(right: Wrong) -> Wrong:
        def written(g: GraphBuilder, *given: Any) -> Any:
            method = getattr(g, name)

            def changed(*args: Any, **named: Any) -> Any:
                args, named = arguments(*args, **named)
                return method(*args, **named)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(g, name, changed)
                return right(g, *given)

        return written

    return wrong


def _weights(name: str, change: Callable[[NDArray[Any]], None]) -> Mutate:
    def mutate(checkpoint: Checkpoint, block: int) -> onnx.ModelProto:
        model = to_onnx(checkpoint, opset=17)
        change_stored(model, f"blocks.{block}.{name}.weight", change)
        return model

    return mutate


def change_stored(
    model: onnx.ModelProto, name: str, change: Callable[[NDArray[Any]], object]
) -> None:
    """Change a stored tensor of a model in place."""
    stored = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    array = numpy_helper.to_array(stored).copy()
    change(array)
    stored.CopyFrom(numpy_helper.from_array(array, name))


def _epsilon(checkpoint: Checkpoint, block: int) -> onnx.ModelProto:
    """PyTorch's default epsilon in the norms of a block, where ViTs have 1e-6."""
    model = to_onnx(checkpoint, opset=17)
    for node in model.graph.node:
        if node.op_type == "LayerNormalization" and node.name.startswith(f"block_{block:02d}/"):
            for attribute in node.attribute:
                if attribute.name == "epsilon":
                    attribute.f = 1e-5
    return model


def _scale(array: NDArray[Any]) -> None:
    array *= np.float32(1.01)


def _exchange_rows(array: NDArray[Any]) -> None:
    array[[0, 1]] = array[[1, 0]]


Mutate = Callable[[Checkpoint, int], onnx.ModelProto]
ANY = families.learned()
MERGES = tuple(family for family in ANY if "merge" in families.load(family).scalars)
PRUNES = tuple(family for family in ANY if "prune" in families.load(family).scalars)


@dataclass(frozen=True)
class Mutation:
    """What is wrong with one block.

    Attributes:
        mutate: From a checkpoint and a block to the wrong model.
        families: That have what it changes.
        after_merge: How many blocks after the first that merges it makes a difference, or None if
            it does everywhere.
    """

    mutate: Mutate
    families: tuple[str, ...] = ANY
    after_merge: int | None = None

    def blocks(self, depth: int, first_merging: int) -> range:
        """Where it makes a difference."""
        return range(0 if self.after_merge is None else first_merging + self.after_merge, depth)


LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
MUTATIONS: dict[str, Mutation] = {
    "even and odd rows swapped": Mutation(rewritten(packed, "write", _odd_sources), MERGES),
    "log-size bias dropped": Mutation(rewritten(Layout, "score_bias", _without_size), MERGES, 1),
    "plain mean": Mutation(rewritten(packed, "_mix", _plain_mean), MERGES, 1),
    "epsilon 1e-5": Mutation(_epsilon),
    "importance of one head": Mutation(rewritten(Layout, "importance", _one_head), PRUNES),
    "importance summed": Mutation(rewritten(packed, "_merged_importance", _summed), ("ltmp",), 0),
    "destinations first": Mutation(rewritten(packed, "write", _destinations_first), MERGES),
    **{f"{layer} times 1.01": Mutation(_weights(layer, _scale)) for layer in LAYERS},
    **{f"rows of {layer} exchanged": Mutation(_weights(layer, _exchange_rows)) for layer in LAYERS},
}
