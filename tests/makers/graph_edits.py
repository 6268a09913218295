"""Edits that make a right static graph wrong, in the scope of one block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.model_file.model import to_onnx
from tests.makers.mutations import Mutate, change_stored

Edit = Callable[[onnx.ModelProto, str], None]


def made_by(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """The node that makes a tensor."""
    found: onnx.NodeProto = next(node for node in model.graph.node if name in node.output)
    return found


def takers(model: onnx.ModelProto, name: str) -> list[onnx.NodeProto]:
    """The nodes that take a tensor."""
    return [node for node in model.graph.node if name in node.input]


def within(model: onnx.ModelProto, scope: str, kind: str) -> list[onnx.NodeProto]:
    """The nodes of a kind right inside a scope."""
    found = [n for n in model.graph.node if n.op_type == kind and n.output[0].startswith(scope)]
    return [n for n in found if "/" not in n.output[0].removeprefix(scope)]


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
    """Write a node in front of another; the name of what it makes, a TopK's values."""
    name = f"wrong/node_{len(model.graph.node)}"
    made = [name, f"{name}/places"] if kind == "TopK" else [name]
    at = next(i for i, node in enumerate(model.graph.node) if node.output == before.output)
    model.graph.node.insert(at, helper.make_node(kind, taken, made, **attributes))
    return name


def smallest_first(name: str) -> Edit:
    """TopK of the smallest instead of the largest."""

    def edit(model: onnx.ModelProto, scope: str) -> None:
        set_attribute(made_by(model, f"{scope}{name}"), "largest", 0)

    return edit


def descending(model: onnx.ModelProto, scope: str) -> None:
    """Where slots should be sorted, the last comes first."""
    set_attribute(made_by(model, f"{scope}ascending"), "largest", 1)


def ranked_by_the_mean(model: onnx.ModelProto, scope: str) -> None:
    """Sources by their mean similarity; the named one stays the best."""
    similarities = made_by(model, f"{scope}similarity").input[0]
    ranking = made_by(model, f"{scope}ranking")
    mean = written(model, ranking, "ReduceMean", similarities, axes=[2], keepdims=0)
    ranking.input[0] = mean


def mean_similarity(model: onnx.ModelProto, scope: str) -> None:
    """The mean similarity of a source takes the place of the best."""
    node = made_by(model, f"{scope}similarity")
    node.op_type = "ReduceMean"


def sorted_by_length(model: onnx.ModelProto, scope: str) -> None:
    """Tokens by the length of their vectors; the named importance stays what it is."""
    ranking = made_by(model, f"{scope}sorted_places")
    tokens = next(n.input[0] for n in within(model, scope, "GatherND") if "/attn/" in n.input[0])
    lengths = written(model, ranking, "ReduceL2", tokens, axes=[2], keepdims=0)
    ends = [constant(model, [bound]) for bound in (1, 2**62, 1)]
    ranking.input[0] = written(model, ranking, "Slice", lengths, *ends)


def own_order(model: onnx.ModelProto, scope: str) -> None:
    """The tokens that stay are not sorted."""
    ranking = made_by(model, f"{scope}sorted_places")
    (after,) = takers(model, f"{scope}sorted_places")
    number = ranking.input[1]
    after.input[0] = written(
        model, after, "TopK", f"{scope}sorted_places", number, axis=1, largest=0
    )


def class_token_pruned(model: onnx.ModelProto, scope: str) -> None:
    """Token 1 stands in its place."""
    made_by(model, f"{scope}order").input.append(constant(model, 1))


def class_token_last(model: onnx.ModelProto, scope: str) -> None:
    """A budget gives the class token no rank of its own."""
    ranking = made_by(model, f"{scope}most_important_places")
    made_by(model, ranking.input[0]).input[1] = constant(model, np.float32(-1))


def rows_one_further(which: int) -> Edit:
    """Rows taken from the next slot."""

    def edit(model: onnx.ModelProto, scope: str) -> None:
        gather = within(model, scope, "GatherND")[which]
        rows, index = gather.input
        number = written(model, gather, "Shape", rows, start=1, end=2)
        further = written(model, gather, "Add", index, constant(model, 1))
        gather.input[1] = written(model, gather, "Mod", further, number)

    return edit


def importance_summed(model: onnx.ModelProto, scope: str) -> None:
    """A destination's importance is the sum, where it should be the largest."""
    (node,) = within(model, scope, "Max")
    node.op_type = "Add"


def own_importance(model: onnx.ModelProto, scope: str) -> None:
    """A destination keeps the importance it had."""
    (node,) = within(model, scope, "Max")
    node.op_type, own = "Identity", node.input[0]
    del node.input[:]
    node.input.append(own)


def first_in_order(model: onnx.ModelProto, scope: str) -> None:
    """A budget keeps the first tokens, not the most important ones."""
    ranking = made_by(model, f"{scope}most_important_places")
    (chosen,) = takers(model, f"{scope}most_important_places")
    places = written(model, ranking, "Cast", chosen.input[0], to=onnx.TensorProto.FLOAT)
    ranking.input[0] = written(model, ranking, "Neg", places)


def by_importance(model: onnx.ModelProto, scope: str) -> None:
    """A budget leaves the tokens in the order of their importance."""
    node = made_by(model, f"{scope}ascending")
    (after,) = takers(model, f"{scope}ascending")
    after.input[0] = node.input[0]


def into_empty_slots(model: onnx.ModelProto, scope: str) -> None:
    """Sources merge into slots that hold no token."""
    masked = made_by(model, f"{scope}similarity").input[0]
    similarities = made_by(model, masked).input[1]
    for node in takers(model, masked):
        node.input[0] = similarities


def overflow_hidden(model: onnx.ModelProto, scope: str) -> None:
    """A budget says that it dropped nothing."""
    node = made_by(model, f"{scope}dropped")
    node.input[0] = node.input[1]


def without_norm(model: onnx.ModelProto, scope: str) -> None:
    """PatchMerger on the tokens as they are."""
    (node,) = within(model, f"{scope}patch_merge/", "LayerNormalization")
    node.op_type, tokens = "Identity", node.input[0]
    del node.input[:], node.attribute[:]
    node.input.append(tokens)


def norm_of_scores_only(model: onnx.ModelProto, scope: str) -> None:
    """PatchMerger mixes the tokens as they are."""
    (norm,) = within(model, f"{scope}patch_merge/", "LayerNormalization")
    (softmax,) = within(model, f"{scope}patch_merge/", "Softmax")
    (mix,) = takers(model, softmax.output[0])
    mix.input[1] = norm.input[0]


def large_epsilon(model: onnx.ModelProto, scope: str) -> None:
    (node,) = within(model, f"{scope}patch_merge/", "LayerNormalization")
    set_attribute(node, "epsilon", 1e-3)


def class_token_merged(model: onnx.ModelProto, scope: str) -> None:
    """PatchMerger mixes the class token with the others."""
    (norm,) = within(model, f"{scope}patch_merge/", "LayerNormalization")
    norm.input[0] = made_by(model, norm.input[0]).input[0]


def stored_query(model: onnx.ModelProto, scope: str) -> None:
    """One number of a query, 0.05 more than in the checkpoint."""
    name = next(
        name
        for node in model.graph.node
        if node.output[0].startswith(f"{scope}patch_merge/")
        for name in node.input
        if name.endswith(".queries")
    )

    def change(array: Any) -> None:
        array[0, 0] += np.float32(0.05)

    change_stored(model, name, change)


def edited(edit: Edit) -> Mutate:
    def mutate(checkpoint: Checkpoint, block: int) -> onnx.ModelProto:
        model = to_onnx(checkpoint, opset=17)
        edit(model, f"block_{block:02d}/")
        return model

    return mutate
