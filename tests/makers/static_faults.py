"""Static graphs as an exporter could get them wrong: each changes one thing in one block."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.graph import slots
from ltmp_export.graph.ragged import Layout
from ltmp_export.model_file.model import to_onnx
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.step import Step
from ltmp_export.steps.fit.step import Fit
from ltmp_export.steps.merge_most.step import MergeMost
from ltmp_export.steps.patch_merge.step import PatchMerge
from ltmp_export.steps.prune_least.step import PruneLeast
from tests.makers.graph_edits import (
    by_importance,
    class_token_last,
    class_token_merged,
    class_token_pruned,
    descending,
    edited,
    first_in_order,
    importance_summed,
    into_empty_slots,
    large_epsilon,
    mean_similarity,
    norm_of_scores_only,
    overflow_hidden,
    own_importance,
    own_order,
    ranked_by_the_mean,
    rows_one_further,
    smallest_first,
    sorted_by_length,
    stored_query,
    without_norm,
)
from tests.makers.mutations import MUTATIONS, Mutate, Wrong, rewritten

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


@dataclass(frozen=True)
class Fault:
    """What is wrong with one block of some models.

    Attributes:
        mutate: From a checkpoint and a block to the wrong model.
        models: Families, and the budgets that `test_static_mutations` names.
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
