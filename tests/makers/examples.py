"""Examples of every family: the digits ViT as a checkpoint of it, and small plans.

A family with thresholds or counts needs no word here: a file in `families/` is enough. One whose
files tell more, by arguments or by tensors of its own, has an example in `EXAMPLES`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ltmp_export import families
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.families import Family
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.step import Step
from ltmp_export.statements.choices import Choices
from ltmp_export.steps.absorb.step import Absorb
from ltmp_export.steps.cluster.step import Cluster
from ltmp_export.steps.contextual.step import Contextual
from ltmp_export.steps.fuse.step import Fuse
from ltmp_export.steps.medoids.step import Medoids
from ltmp_export.steps.merge_mask.step import MergeMask
from ltmp_export.steps.merge_matrix.step import MergeMatrix
from ltmp_export.steps.merge_most.step import MergeMost
from ltmp_export.steps.merge_some.step import MergeSome
from ltmp_export.steps.mergence.step import Mergence
from ltmp_export.steps.patch_merge.step import PatchMerge
from ltmp_export.steps.pattern.step import Pattern
from ltmp_export.steps.predict.step import Predict
from ltmp_export.steps.rank.step import Rank
from ltmp_export.steps.sample.step import Sample
from ltmp_export.steps.slim.step import Slim
from ltmp_export.steps.transport.step import Transport
from tests.conftest import DIGITS_LTMP, FIXTURES, cluster_layers, load_torch
from tests.makers import masks

KEEP = (9, 7, 4)  # the budgets of small plans

Weights: TypeAlias = Mapping[str, Tensor]
Draw: TypeAlias = Callable[[str, tuple[int, ...]], Tensor]  # a parameter by name and shape


class Example(NamedTuple):
    """What tests make up of a family whose files tell more than thresholds.

    Attributes:
        content: A file's content, of the weights of the digits ViT: 6 blocks, width 128.
        stated: What is stated about that file.
        plan: Of a ViT of 3 blocks, width 48, whose parameters are drawn.
    """

    content: Callable[[Weights], dict[str, Any]]
    stated: Mapping[str, Any]
    plan: Callable[[Family, Draw], Plan]


def digits(family: str, base: Path) -> Checkpoint:
    """The digits ViT as a checkpoint of a family.

    Args:
        family: Its name.
        base: The file of the dense weights; others are written beside it.
    """
    method = families.load(family)
    if method.counts:  # r as in golden.npz
        return load_checkpoint(base, Choices(family=family, rate="8", num_heads=2))
    path = base.with_name(f"digits_{family}.pth")
    if method.start:
        recorded = FIXTURES / f"digits_{family}_thresholds.pth.tar"
        if recorded.exists():
            path = recorded
        else:
            torch.save(_thresholds(method), path)
        return load_checkpoint(path, Choices(family=family, base_checkpoint=base, num_heads=2))
    example = EXAMPLES[family]
    if not path.exists():
        torch.save(example.content(load_torch(base)), path)
    return load_checkpoint(path, Choices(num_heads=2, **example.stated))


def _thresholds(method: Family) -> dict[str, Any]:
    """Those that the digits' LTMP learned, as far as a family has them."""
    learned = load_torch(DIGITS_LTMP)["state_dict"]
    ends = tuple(f"{kind}_masker.threshold" for kind in method.scalars)
    return {"state_dict": {key: value for key, value in learned.items() if key.endswith(ends)}}


def plans(family: str, depth: int, draw: Draw, prefix: int = 1) -> dict[str, Plan]:
    """Small plans of a family by form: "dynamic" and "budget", or "static".

    Args:
        family: Its name.
        depth: Blocks, at most 3.
        draw: Parameters of the reduction, by name and shape.
        prefix: Tokens before the patches.
    """
    method = families.load(family)
    if method.start:
        values = {"merge": (0.75, 0.5, 0.625), "prune": (0.03125, 0.0625, 0.09375)}
        plan = method.freeze({kind: values[kind][:depth] for kind in method.scalars})
        return {"dynamic": plan, "budget": plan.within(KEEP)}
    if not method.counts:
        plan = EXAMPLES[family].plan(method, draw)
        each = {"dynamic": plan, "budget": plan.within(KEEP)}
        return {"static": plan} if plan.counted else each
    counts: dict[str, tuple[int, ...]] = {"merge": (2, 1, 0), "prune": (1, 1, 1)}
    plan = method.freeze({kind: counts[kind] for kind in method.counts})
    if prefix > 1:
        tied = [
            tuple(replace(s, prefix=prefix) if isinstance(s, MergeMost) else s for s in block)
            for block in plan.blocks
        ]
        plan = replace(plan, blocks=tuple(tied))
    return {"static": plan}


def _evit_content(weights: Weights) -> dict[str, Any]:
    args = argparse.Namespace(base_keep_rate=0.7, drop_loc="(1, 2, 4)", fuse_token=True)
    return {"model": weights, "args": args}


def _evit_plan(method: Family, draw: Draw) -> Plan:
    return Plan(method.name, ((Fuse(0.7),), (), (Fuse(0.7),)))


def _topk_content(weights: Weights) -> dict[str, Any]:
    args = argparse.Namespace(
        model="topk_small_patch4_32", reduction_loc=[1, 2, 4], keep_rate=[0.25, 0.2, 0.1],
        model_ema=False,
    )  # fmt: skip
    return {"model": weights, "args": args, "ema_best": False}


def _topk_plan(method: Family, draw: Draw) -> Plan:
    return Plan(method.name, ((Fuse(0.7, False, 5),), (), (Fuse(0.7, False, 3),)))


def _patchmerger_content(weights: Weights) -> dict[str, Any]:
    return dict(weights) | cluster_layers(128, 24, 9)


def _patchmerger_plan(method: Family, draw: Draw) -> Plan:
    before: dict[int, Step] = {}
    parameters: dict[str, Tensor] = {}
    for index, (block, tokens) in enumerate({1: 6, 3: 2}.items()):
        before[block] = PatchMerge(f"cluster_layers.{index}", tokens, 0.25, 1e-6)
        shapes = {"queries": (tokens, 48), "norm.weight": (48,), "norm.bias": (48,)}
        named = {f"cluster_layers.{index}.{part}": shape for part, shape in shapes.items()}
        parameters |= {name: draw(name, shape) for name, shape in named.items()}
    return Plan(method.name, ((),) * 3, before, parameters)


def _zoo_content(method: str, weights: Weights, **others: Any) -> dict[str, Any]:
    """As a file of the TokenReduction zoo, reducing before blocks 2 and 4."""
    named = {"model": f"{method}_small_patch4_32", "reduction_loc": [2, 4], "keep_rate": [0.35]}
    args = argparse.Namespace(**named, model_ema=True, **others)
    return {"model": weights, "args": args, "model_ema": weights, "ema_best": True}


def drawn(shapes: Mapping[str, tuple[int, ...]], draw: Draw | None = None) -> dict[str, Tensor]:
    """Weights of these shapes, of linear layers and norms of about the right size."""
    generator = torch.Generator().manual_seed(1)
    made = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator) if draw is None else draw(name, shape)
        made[name] = value * shape[-1] ** -0.5 if len(shape) > 1 else value / 10
    return made


def predictors(width: int, count: int) -> dict[str, tuple[int, ...]]:
    half, quarter = width // 2, width // 4
    sides = {"in_conv.1": (width, width), "out_conv.0": (half, width)}
    sides |= {"out_conv.2": (quarter, half), "out_conv.4": (2, quarter)}
    shapes: dict[str, tuple[int, ...]] = {}
    for number in range(count):
        name = f"score_predictor.{number}"
        shapes |= {f"{name}.{layer}.weight": shape for layer, shape in sides.items()}
        shapes |= {f"{name}.{layer}.bias": shape[:1] for layer, shape in sides.items()}
        shapes |= {f"{name}.in_conv.0.{part}": (width,) for part in ("weight", "bias")}
    return shapes


def normed(weights: dict[str, Tensor], ends: str | tuple[str, ...]) -> dict[str, Tensor]:
    """The same with norms' weights about 1."""
    return {n: value + 1 if n.endswith(ends) else value for n, value in weights.items()}


def _dynamicvit_content(weights: Weights) -> dict[str, Any]:
    own = normed(drawn(predictors(128, 2)), "in_conv.0.weight")
    return _zoo_content("dyvit", dict(weights) | own)


def _dynamicvit_plan(method: Family, draw: Draw) -> Plan:
    own = normed(drawn(predictors(48, 2), draw), "in_conv.0.weight")
    before = {1: Predict("score_predictor.0", 6, 1e-6), 2: Predict("score_predictor.1", 3, 1e-6)}
    return Plan(method.name, ((),) * 3, before, own)


def slimming(width: int, *tokens: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for number, made in enumerate(tokens):
        name, hidden = f"cluster_layers.{number}", width // 2
        shapes |= {f"{name}.weight.0.{part}": (width,) for part in ("weight", "bias")}
        shapes |= {f"{name}.weight.1.weight": (hidden, width), f"{name}.weight.1.bias": (hidden,)}
        shapes |= {f"{name}.weight.3.weight": (made, hidden), f"{name}.weight.3.bias": (made,)}
        shapes[f"{name}.scale"] = (1, 1, 1)
    return shapes


def _sit_content(weights: Weights) -> dict[str, Any]:
    own = normed(drawn(slimming(128, 22, 7)), "weight.0.weight")
    return _zoo_content("sit", dict(weights) | own)


def _sit_plan(method: Family, draw: Draw) -> Plan:
    own = normed(drawn(slimming(48, 6, 2), draw), "weight.0.weight")
    before = {1: Slim("cluster_layers.0", 6, 24), 3: Slim("cluster_layers.1", 2, 24)}
    return Plan(method.name, ((),) * 3, before, own)


def _sinkhorn_content(weights: Weights) -> dict[str, Any]:
    own = drawn({"cluster_layers.0.v": (22, 128), "cluster_layers.1.v": (7, 128)})
    return _zoo_content("sinkhorn", dict(weights) | own, sinkhorn_eps=0.5, cluster_iters=3)


def _sinkhorn_plan(method: Family, draw: Draw) -> Plan:
    own = drawn({"cluster_layers.0.v": (6, 48), "cluster_layers.1.v": (2, 48)}, draw)
    names = ("cluster_layers.0", "cluster_layers.1")
    before = {1: Transport(names[0], 6, 0.5, 3), 2: Transport(names[1], 2, 0.5, 2)}
    return Plan(method.name, ((),) * 3, before, own)


def dpcknn_shapes(width: int) -> dict[str, tuple[int, ...]]:
    names = ("cluster_layers.0.score", "cluster_layers.1.score")
    weights: dict[str, tuple[int, ...]] = {f"{name}.weight": (1, width) for name in names}
    return weights | {f"{name}.bias": (1,) for name in names}


def _dpcknn_content(weights: Weights) -> dict[str, Any]:
    own = drawn(dpcknn_shapes(128))
    return _zoo_content("dpcknn", dict(weights) | own, k_neighbors=5, equal_weight=False)


def _dpcknn_plan(method: Family, draw: Draw) -> Plan:
    names = ("cluster_layers.0", "cluster_layers.1")
    before = {1: Cluster(names[0], 6, 3), 2: Cluster(names[1], 3, 2, weighted=False)}
    return Plan(method.name, ((),) * 3, before, drawn(dpcknn_shapes(48), draw))


def _ats_content(weights: Weights) -> dict[str, Any]:
    args = argparse.Namespace(
        model="ats_small_patch4_32", reduction_loc=[1, 2, 4], keep_rate=[0.6], model_ema=False
    )
    return {"model": weights, "args": args, "ema_best": False}


def _ats_plan(method: Family, draw: Draw) -> Plan:
    return Plan(method.name, ((Sample(8),), (), (Sample(6),)))


def _kmedoids_content(weights: Weights) -> dict[str, Any]:
    return _zoo_content("kmedoids", weights, cluster_iters=2, equal_weight=False)


def _kmedoids_plan(method: Family, draw: Draw) -> Plan:
    return Plan(method.name, ((),) * 3, {1: Medoids(6, 2), 2: Medoids(3, 1)})


def _heuristic_content(weights: Weights) -> dict[str, Any]:
    own = {"heuristic_pattern": "linf", "min_radius": 1.0, "not_contiguous": False}
    return _zoo_content("heuristic", weights, **own)


def _heuristic_plan(method: Family, draw: Draw) -> Plan:
    before = {1: Pattern("0-2,4-7", 9), 2: Pattern("1-3", 7)}
    return Plan(method.name, ((),) * 3, before)


def _pmvit_content(weights: Weights) -> dict[str, Any]:
    return dict(weights) | _matrices("blocks.1", 24) | _matrices("blocks.3", 9)


def _matrices(block: str, tokens: int) -> dict[str, Tensor]:
    """Runs of patches merged and spread again, the class token alone; some patches take no part."""
    of, patches = torch.arange(64), tokens - 1
    merge = torch.zeros(tokens, 65)
    merge[0, 0] = 1
    merge[1 + of * patches // 64, 1 + of] = 1.0
    mask = torch.ones(65)
    mask[5:15] = 0
    merge *= mask
    recover = torch.linalg.pinv(merge)
    named = {"merge_matrix": merge, "recover_matrix": recover, "token_mask": mask}
    return {f"{block}.attn.{name}": value for name, value in named.items()}


def _pmvit_plan(method: Family, draw: Draw) -> Plan:
    name, shapes = "blocks.1.attn", {"merge_matrix": (4, 10), "recover_matrix": (10, 4)}
    named = {f"{name}.{part}": shape for part, shape in shapes.items()}
    parameters = {key: draw(key, shape) for key, shape in named.items()}
    parameters[f"{name}.token_mask"] = (draw(f"{name}.token_mask", (10,)) > 0).float()
    return Plan(method.name, ((),) * 3, {1: MergeMatrix(name, 4, 10)}, parameters)


def _mergence_content(weights: Weights) -> dict[str, Any]:
    args = argparse.Namespace(keep_rate=0.7, merge_at="(1, 2, 3)", merge_weights="uniform")
    return {"state_dict": weights, "arch": "multiscale_mergence_vit_digits", "args": args}


def _mergence_plan(method: Family, draw: Draw) -> Plan:
    return Plan(method.name, ((Mergence(6, "size"),), (Mergence(4, "size"),), (Mergence(2),)))


def _diffrate_plan(method: Family, draw: Draw) -> Plan:
    return Plan(method.name, ((Rank(8), Absorb(6)), (Rank(5),), (Rank(4), Absorb(2))))


def _masks_plan(method: Family, draw: Draw) -> Plan:
    names = [f"blocks.{block}.ltm" for block in range(3)]
    parameters = {"ltm.mask0": draw("ltm.mask0", (9, 4)).abs()}
    for name in names:
        parameters |= {f"{name}.center": draw(f"{name}.center", (48,))}
        parameters |= {f"{name}.step": 4 * draw(f"{name}.step", (1,))}
    steps = [
        MergeMask(name, "ltm.mask0", 9, 4, first=not place, restore=True)
        for place, name in enumerate(names)
    ]
    return Plan(method.name, tuple((step,) for step in steps), parameters=parameters)


def _dymu_content(weights: Weights) -> dict[str, Any]:
    bounds = (0.96, 1.0, 0.9, 0.9, 1.0, 0.85)
    own = {f"blocks.{block}.threshold": torch.tensor(at) for block, at in enumerate(bounds)}
    return {"name": "digits", "state_dict": dict(weights) | own}


def _dymu_plan(method: Family, draw: Draw) -> Plan:
    return Plan(method.name, ((MergeSome(0.75),), (), (MergeSome(0.625),)))


def _visionzip_plan(method: Family, draw: Draw) -> Plan:
    return Plan(method.name, ((), (), (Contextual(4, 2),)))


_VISIONZIP = {"family": "visionzip", "dominant": 16, "contextual": 6}
DIFFRATE = json.dumps(
    {
        "ViT-T-DeiT": {
            "0.5": {
                "prune_kept_num": "[65,55,50,40,33,20]",
                "merge_kept_num": "[60,50,52,35,33,11]",
            }
        }
    }
)

# Families that decide nothing, or by the very step of another, or of which an oracle, golden sets
# and borderline images tell enough: left out where it takes long.
LIGHT = (
    "ats", "diffrate", "dpcknn", "dymu", "dynamicvit", "evit", "heuristic", "kmedoids", "sinkhorn",
    "sit", "topk", "visionzip",
)  # fmt: skip
EXAMPLES = {
    "ats": Example(_ats_content, {}, _ats_plan),
    "diffrate": Example(dict, {"diffrate": DIFFRATE, "family": "diffrate"}, _diffrate_plan),
    "dymu": Example(_dymu_content, {}, _dymu_plan),
    "dpcknn": Example(_dpcknn_content, {}, _dpcknn_plan),
    "heuristic": Example(_heuristic_content, {}, _heuristic_plan),
    "kmedoids": Example(_kmedoids_content, {}, _kmedoids_plan),
    "dynamicvit": Example(_dynamicvit_content, {}, _dynamicvit_plan),
    "sinkhorn": Example(_sinkhorn_content, {}, _sinkhorn_plan),
    "sit": Example(_sit_content, {}, _sit_plan),
    "evit": Example(_evit_content, {}, _evit_plan),
    "ltm_transformer": Example(masks.content, {}, _masks_plan),
    "multiscale_mergence": Example(_mergence_content, {}, _mergence_plan),
    "patchmerger": Example(_patchmerger_content, {"merge_at": (2, 4)}, _patchmerger_plan),
    "pmvit": Example(_pmvit_content, {}, _pmvit_plan),
    "topk": Example(_topk_content, {}, _topk_plan),
    "visionzip": Example(dict, _VISIONZIP, _visionzip_plan),
}
