"""The check must find each of these wrong static graphs, and name where it is wrong.

Each changes one thing in one block of a right graph, as an exporter could get it wrong. What it
gives for these images is shown to be something else than what the right graph gives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.graph import slots
from ltmp_export.graph.ragged import Layout
from ltmp_export.images import inputs
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.parity.report import CheckReport
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.step import Step
from ltmp_export.steps.fit.step import Fit
from ltmp_export.steps.merge_most.step import MergeMost
from ltmp_export.steps.patch_merge.step import PatchMerge
from ltmp_export.steps.prune_least.step import PruneLeast
from tests.makers.mutations import MUTATIONS, Mutate, Wrong, change_stored, rewritten

Digits = Callable[[str], Checkpoint]
Edit = Callable[[onnx.ModelProto, str], None]

IMAGES = 2
CHANGED = 1e-4  # of a logit; 5.1e-6 is the most that right graphs are off by (test_golden)

# Budgets for the digits' ltmp. With the first each image here loses tokens in block 0 and most do
# later; with the other none does, and from block 1 on there are empty slots.
BUDGETS = {"tight": (40, 22, 18, 12, 9, 8), "ample": (65, 40, 36, 30, 24, 20)}


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


# Edits of a right graph


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


# Right graphs of another plan


def planned(change: Callable[[Plan, int], Plan]) -> Mutate:
    def mutate(checkpoint: Checkpoint, block: int) -> onnx.ModelProto:
        other = dataclasses.replace(checkpoint, plan=change(checkpoint.plan, block))
        return to_onnx(other, opset=17)

    return mutate


def with_steps(plan: Plan, block: int, change: Callable[[Step], Step]) -> Plan:
    """The steps of one block changed."""
    blocks = list(plan.blocks)
    blocks[block] = tuple(map(change, blocks[block]))
    return dataclasses.replace(plan, blocks=tuple(blocks))


def more(number: int) -> Mutate:
    """So many tokens more are taken or kept, and as many fewer in the next block."""

    def change(plan: Plan, block: int) -> Plan:
        changed = with_steps(plan, block, lambda step: _counting(step, number))
        return with_steps(changed, block + 1, lambda step: _counting(step, -number))

    return planned(change)


def _counting(step: Step, more: int) -> Step:
    if isinstance(step, (MergeMost, PruneLeast)):
        return dataclasses.replace(step, count=step.count + more)
    return dataclasses.replace(step, keep=step.keep + more) if isinstance(step, Fit) else step


def exchanged_counts(plan: Plan, block: int) -> Plan:
    """Pruning takes what merging should, and the other way round."""
    first, second = (s for s in plan.blocks[block] if isinstance(s, (MergeMost, PruneLeast)))
    steps = (
        _counting(first, second.count - first.count),
        _counting(second, first.count - second.count),
    )
    return dataclasses.replace(
        plan, blocks=(*plan.blocks[:block], steps, *plan.blocks[block + 1 :])
    )


def unmerged_by_rank(plan: Plan, block: int) -> Plan:
    return with_steps(
        plan,
        block,
        lambda s: dataclasses.replace(s, ranked=True) if isinstance(s, MergeMost) else s,
    )


def other_scale(plan: Plan, block: int) -> Plan:
    """PatchMerger's scores divided by √C."""
    mixing = plan.before[block]
    assert isinstance(mixing, PatchMerge)
    other = dataclasses.replace(mixing, scale=128**-0.5)
    return dataclasses.replace(plan, before={**plan.before, block: other})


def a_block_later(plan: Plan, block: int) -> Plan:
    merges = {at + (at == block): merge for at, merge in plan.before.items()}
    return dataclasses.replace(plan, before=merges)


# Right functions replaced while one block is written


def _plain_mean(right: Wrong) -> Wrong:
    """Every member of a mean weighs the same; the sizes stay what they are."""

    def wrong(g: Any, destinations: slots.Slots, sources: slots.Slots, going: str) -> slots.Slots:
        found: slots.Slots = right(g, destinations, sources, going)
        unsized = (dataclasses.replace(part, size=None) for part in (destinations, sources))
        return dataclasses.replace(found, x=right(g, *unsized, going).x)

    return wrong


def _class_attention(right: Wrong) -> Wrong:
    """Importance as the class token sees it."""

    def wrong(layout: Layout, weights: str, heads: int) -> str:
        seen = layout.g.slice(weights, 2, 0, 1)
        return layout.g.reduce("ReduceMean", seen, [1, 2], name="importance")

    return wrong


def _all_slots(right: Wrong) -> Wrong:
    """Slots that hold no token count like others."""
    return lambda layout, *more: right(dataclasses.replace(layout, full=True), *more)


FIXED, MERGING, PRUNING = ("m", "p", "mp", "pm"), ("m", "mp", "pm"), ("p", "mp", "pm")


@dataclass(frozen=True)
class Fault:
    """What is wrong with one block of some models.

    Attributes:
        mutate: From a checkpoint and a block to the wrong model.
        models: Of `MODELS`.
        block: Which block.
        where: What the check must name; the block unless stated.
        seen: A tensor of the block that shows it where these images' logits do not.
    """

    mutate: Mutate
    models: tuple[str, ...]
    block: int = 2
    where: str = ""
    seen: str = ""


FAULTS: dict[str, Fault] = {
    "a token more": Fault(more(1), ("m", "p", "tight")),
    "a token less": Fault(more(-1), ("mp",)),
    "counts exchanged": Fault(planned(exchanged_counts), ("mp",)),
    "least similar merge": Fault(edited(smallest_first("ranking")), ("m",)),
    "least important stay": Fault(edited(smallest_first("sorted_places")), ("p",)),
    "ranked by the mean": Fault(edited(ranked_by_the_mean), ("m", "mp")),
    "mean similarity": Fault(edited(mean_similarity), ("pm",)),
    "sorted by length": Fault(edited(sorted_by_length), ("p", "pm")),
    "class attention": Fault(rewritten(Layout, "importance", _class_attention), ("p",)),
    "one head's importance": Fault(MUTATIONS["importance of one head"].mutate, ("mp", "tight")),
    "not sorted": Fault(edited(own_order), ("mp", "pm")),
    "unmerged by rank": Fault(planned(unmerged_by_rank), ("m",)),
    "unmerged turned round": Fault(edited(descending), ("m",)),
    "first rows one further": Fault(edited(rows_one_further(0)), ("m", "tight")),
    "last rows one further": Fault(edited(rows_one_further(-1)), ("m", "pm")),
    "plain mean": Fault(rewritten(slots, "merged", _plain_mean), ("m", "tight")),
    "no log of sizes": Fault(MUTATIONS["log-size bias dropped"].mutate, ("m",)),
    "importance summed": Fault(edited(importance_summed), ("mp", "ample"), 1),
    "own importance": Fault(edited(own_importance), ("mp", "ample"), 1),
    "class token pruned": Fault(edited(class_token_pruned), ("p", "mp")),
    "class token dropped": Fault(edited(class_token_last), ("tight",)),
    "the least important fit": Fault(edited(smallest_first("most_important")), ("tight",)),
    "the first tokens fit": Fault(edited(first_in_order), ("tight",), 0),
    "the budget sorts": Fault(edited(by_importance), ("ample",)),
    "the budget turns round": Fault(edited(descending), ("tight",)),
    "merging into empty slots": Fault(edited(into_empty_slots), ("ample",)),
    "empty slots attended to": Fault(rewritten(Layout, "score_bias", _all_slots), ("ample",)),
    "empty slots give importance": Fault(
        rewritten(Layout, "importance", _all_slots), ("ample",), seen="importance"
    ),
    "overflow hidden": Fault(edited(overflow_hidden), ("tight",), 0, "head"),
    "no norm": Fault(edited(without_norm), ("patchmerger",)),
    "norm of scores only": Fault(edited(norm_of_scores_only), ("patchmerger",)),
    "epsilon 1e-3": Fault(edited(large_epsilon), ("patchmerger",)),
    "other scale": Fault(planned(other_scale), ("patchmerger",)),
    "class token merged": Fault(edited(class_token_merged), ("patchmerger",)),
    "another query": Fault(edited(stored_query), ("patchmerger",)),
    "a block later": Fault(planned(a_block_later), ("patchmerger",)),
    "another weight": Fault(MUTATIONS["mlp.fc2 times 1.01"].mutate, ("patchmerger",)),
}
MODELS = ("m", "p", "mp", "pm", "patchmerger", *BUDGETS)


def taken(digits: Digits, model: str) -> Checkpoint:
    """The digits of a family, or its ltmp under a budget."""
    if model not in BUDGETS:
        return digits(model)
    learned = digits("ltmp")
    return dataclasses.replace(learned, plan=learned.plan.within(BUDGETS[model]))


def images_of(checkpoint: Checkpoint) -> inputs.Images:
    return inputs.load_images(None, checkpoint.vit, checkpoint.preprocessing, IMAGES)


def checked(model: onnx.ModelProto, checkpoint: Checkpoint) -> CheckReport:
    return compare.compare(model, checkpoint, images_of(checkpoint), batch_sizes=(2,))


def outputs(model: onnx.ModelProto, checkpoint: Checkpoint, seen: str) -> list[NDArray[Any]]:
    """What a graph gives, and one of its inner tensors; as written, not optimised."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    if seen:
        tapped.graph.output.append(onnx.ValueInfoProto(name=seen))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(tapped.SerializeToString(), options, providers=providers)
    given: list[NDArray[Any]] = session.run(None, {"images": images_of(checkpoint).pixels})
    return given


@pytest.mark.parametrize("model", MODELS)
def test_the_right_graph(digits: Digits, model: str) -> None:
    checkpoint = taken(digits, model)
    report = checked(to_onnx(checkpoint, opset=17, token_counts=True), checkpoint)
    assert report.verdict == "equal", report.headline()
    lost = [comparison.overflow > 0 for comparison in report.comparisons]
    assert lost == [model == "tight"] * len(lost)


@pytest.mark.parametrize(
    ("name", "model"), [(name, model) for name, fault in FAULTS.items() for model in fault.models]
)
def test_a_wrong_graph(digits: Digits, name: str, model: str) -> None:
    checkpoint, fault = taken(digits, model), FAULTS[name]
    wrong = fault.mutate(checkpoint, fault.block)
    right = to_onnx(checkpoint, opset=17)
    seen = fault.seen and f"block_{fault.block:02d}/{fault.seen}"
    pairs = zip(outputs(wrong, checkpoint, seen), outputs(right, checkpoint, seen), strict=True)
    assert any(not np.allclose(a, b, rtol=0, atol=CHANGED) for a, b in pairs)
    report = checked(wrong, checkpoint)
    assert report.verdict == "fail"
    where = fault.where or f"block {fault.block}"
    assert {comparison.where for comparison in report.of("fail")} == {where}
    assert f"{where}: " in report.headline()


def test_a_query_that_rounding_hides(digits: Digits) -> None:
    """By the stored number: no decision and no logit of these images tells."""
    checkpoint = digits("patchmerger")
    model = to_onnx(checkpoint, opset=17)

    def change(array: NDArray[Any]) -> None:
        array[3, 5] = np.nextafter(array[3, 5], np.float32(1))

    change_stored(model, "cluster_layers.1.queries", change)
    report = checked(model, checkpoint)
    assert {comparison.verdict for comparison in report.comparisons} == {"equal"}
    assert report.verdict == "fail"
    assert "cluster_layers.1.queries differs from the checkpoint's" in report.headline()
