"""The check must find each of these wrong static graphs, and name where it is wrong.

Each changes one thing in one block of a right graph, as an exporter could get it wrong. What it
gives for these images is shown to be something else than what the right graph gives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ltmp_export import inputs, onnx_export, parity, runtime, slots
from ltmp_export.check_report import CheckReport
from ltmp_export.checkpoint import Checkpoint
from ltmp_export.errors import ExportError
from ltmp_export.plan import Fit, MergeMost, Plan, PruneLeast, Step
from ltmp_export.ragged import Layout
from tests.mutations import MUTATIONS, Mutate, Wrong, _rewritten, change_stored

Digits = Callable[[str], Checkpoint]
Edit = Callable[[onnx.ModelProto, str], None]

IMAGES = 3
CHANGED = 1e-4  # of a logit; 5.1e-6 is the most that right graphs are off by (test_golden)

# Budgets for the digits' ltmp. With the first each image here loses tokens in block 0 and most do
# later; with the other none does, and from block 1 on there are empty slots.
BUDGETS = {"tight": (40, 22, 18, 12, 9, 8), "ample": (65, 40, 36, 30, 24, 20)}


def made_by(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """The node that makes a tensor."""
    return next(node for node in model.graph.node if name in node.output)


def only(model: onnx.ModelProto, scope: str, kind: str, which: int = 0) -> onnx.NodeProto:
    """One of the nodes of a kind right inside a scope."""
    found = [n for n in model.graph.node if n.op_type == kind and n.output[0].startswith(scope)]
    return [n for n in found if "/" not in n.output[0].removeprefix(scope)][which]


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def constant(model: onnx.ModelProto, value: Any) -> str:
    name = f"wrong/{len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def written(
    model: onnx.ModelProto, before: onnx.NodeProto, kind: str, *taken: str, **attributes: Any
) -> str:
    """Write a node in front of another; the name of what it makes."""
    name, output = f"wrong/{len(model.graph.node)}", before.output[0]
    at = next(i for i, node in enumerate(model.graph.node) if node.output[0] == output)
    model.graph.node.insert(at, helper.make_node(kind, taken, [name], **attributes))
    return name


# Wrong graphs by an edit


def smallest_first(name: str) -> Edit:
    """TopK of the smallest instead of the largest."""

    def edit(model: onnx.ModelProto, scope: str) -> None:
        set_attribute(made_by(model, f"{scope}{name}"), "largest", 0)

    return edit


def unmerged_descending(model: onnx.ModelProto, scope: str) -> None:
    set_attribute(made_by(model, f"{scope}ascending"), "largest", 1)


def ranked_by_the_mean(model: onnx.ModelProto, scope: str) -> None:
    """Sources by their mean similarity; the named one stays the best."""
    similarities = made_by(model, f"{scope}similarity").input[0]
    ranking = made_by(model, f"{scope}ranking")
    mean = written(model, ranking, "ReduceMean", similarities, axes=[2], keepdims=0)
    made_by(model, f"{scope}ranking").input[0] = mean


def mean_similarity(model: onnx.ModelProto, scope: str) -> None:
    """The mean similarity of each source takes the place of the best."""
    node = made_by(model, f"{scope}similarity")
    node.op_type, node.input[:] = "ReduceMean", node.input[:1]
    set_attribute(node, "axes", [2])


def sorted_by_length(model: onnx.ModelProto, scope: str) -> None:
    """Tokens by the length of their vectors; the named importance stays what it is."""
    order = made_by(model, f"{scope}sorted_places")
    tokens = next(
        n.input[0] for n in model.graph.node if n.op_type == "GatherND" and "attn" in n.input[0]
        and n.output[0].startswith(scope)
    )  # fmt: skip
    lengths = written(model, order, "ReduceL2", tokens, axes=[2], keepdims=0)
    ends = (constant(model, [bound]) for bound in (1, 2**62, 1))
    patches = written(model, made_by(model, f"{scope}sorted_places"), "Slice", lengths, *ends)
    made_by(model, f"{scope}sorted_places").input[0] = patches


def unsorted(model: onnx.ModelProto, scope: str) -> None:
    """The tokens that stay, in their own order."""
    order = made_by(model, f"{scope}order")
    number = constant(model, [len(stored(model, made_by(model, f"{scope}sorted")))])
    del number
    raise NotImplementedError


def rows_one_further(which: int) -> Edit:
    """Some rows taken from the slot behind."""

    def edit(model: onnx.ModelProto, scope: str) -> None:
        gather = only(model, scope, "GatherND", which)
        rows, index = gather.input
        number = written(model, gather, "Shape", rows, start=1, end=2)
        further = written(model, gather, "Add", index, constant(model, 1))
        gather.input[1] = written(model, gather, "Mod", further, number)

    return edit
