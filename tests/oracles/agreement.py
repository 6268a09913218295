"""Static models in all their forms, and whether these agree with the oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ltmp_export import families
from ltmp_export.backbones.trace import Trace
from ltmp_export.checkpoint import rates
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.vit import Vit
from ltmp_export.reference import Reference
from ltmp_export.runtimes import opsets
from ltmp_export.statements.choices import Choices
from tests import tolerances
from tests.makers import random_vits
from tests.makers.exported import Exported, numpy_weights
from tests.makers.random_vits import Case
from tests.oracles import oracle_static
from tests.oracles.oracle import OracleResult
from tests.oracles.oracle_static import BudgetResult

OPSETS = (16, 17, 20, opsets.newest_opset())

# Where scores are nearer to one another than this, float32 may rank them otherwise: a similarity is
# off by up to 5.3e-7 in these models, an importance by up to 3.7e-7.
DECIDED = 2e-6


@dataclass(frozen=True)
class Form:
    """What one form of a model gave: logits [B, classes], counts and overflow [B, depth]."""

    name: str
    tolerance: float
    logits: NDArray[Any]
    counts: NDArray[np.int64]
    overflow: NDArray[np.int64]


def forms(model: VisionTransformer, vit: Vit, plan: Plan, images: Tensor, opset: int) -> list[Form]:
    """The batch in one call, image by image, in a graph of single images, and the reference."""
    batches = Exported(vit, plan, model, opset)
    single = Exported(vit, plan, model, opset, batch_size=1)
    return [
        exported("one call", batches, images, len(images)),
        exported("batch 1", batches, images, 1),
        exported("single images", single, images, 1),
        referenced("reference", Reference(model, plan), images, tolerances.RANDOM_REFERENCE),
        referenced(
            "reference in float64",
            Reference(model, plan, torch.float64),
            images,
            tolerances.RANDOM_REFERENCE_64,
        ),
    ]


def batches(
    model: VisionTransformer, vit: Vit, plan: Plan, images: Tensor, opset: int
) -> list[Form]:
    """Batches of seven and three, single images, and the reference in float64."""
    several, single = (Exported(vit, plan, model, opset, size) for size in (None, 1))
    reference = Reference(model, plan, torch.float64)
    return [
        exported("batch of seven", several, images, 7),
        exported("batches of three", several, images, 3),
        exported("single images", single, images, 1),
        referenced("reference", reference, images, tolerances.RANDOM_REFERENCE_64),
    ]


def exported(name: str, exported: Exported, images: Tensor, batch: int) -> Form:
    names = ["logits", "token_counts"]
    names += [out.name for out in exported.session.get_outputs() if out.name == "overflow"]
    parts = [
        exported.session.run(names, {"images": images[start : start + batch].numpy()})
        for start in range(0, len(images), batch)
    ]
    logits, counts, *more = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    overflow = more[0] if more else np.zeros_like(counts)
    return Form(name, tolerances.RANDOM_EXPORTED, logits, counts, overflow)


def referenced(name: str, reference: Reference, images: Tensor, tolerance: float) -> Form:
    """What a reference gives, image by image."""
    traces = [reference.run(image) for image in images]
    logits = np.stack([trace.logits.numpy() for trace in traces])
    counts = np.array([trace.counts for trace in traces])
    return Form(name, tolerance, logits, counts, np.array([_dropped(trace) for trace in traces]))


def _dropped(trace: Trace) -> list[int]:
    """Tokens that a budget had no room for, by block."""
    found = []
    for decisions in trace.decisions:
        fits = [d for d in decisions if d.step.action == "fit"]
        found.append(sum(int((~d.chosen).sum()) for d in fits))
    return found


def agree(
    found: Sequence[Form],
    expected: Sequence[OracleResult] | Sequence[BudgetResult],
    rows: NDArray[np.bool_],
) -> None:
    """All forms agree with the oracle in these rows, and are finite in all."""
    logits = np.stack([result.logits for result in expected])
    counts = np.array([result.counts for result in expected])
    overflow = np.array([getattr(result, "overflow", [0] * counts.shape[1]) for result in expected])
    for form in found:
        assert np.isfinite(form.logits).all(), form.name
        np.testing.assert_array_equal(form.counts[rows], counts[rows], form.name)
        np.testing.assert_array_equal(form.overflow[rows], overflow[rows], form.name)
        np.testing.assert_allclose(
            form.logits[rows], logits[rows], rtol=0, atol=form.tolerance, err_msg=form.name
        )


def decided(expected: Sequence[OracleResult] | Sequence[BudgetResult]) -> NDArray[np.bool_]:
    """The rows whose decisions float32 cannot flip: most of them."""
    rows = np.array([result.margin > DECIDED for result in expected])
    assert rows.mean() > 0.5
    return rows


def shares(family: str, stated: Sequence[int]) -> dict[str, list[int]]:
    """What each kind of step takes, by METHOD §1 in whole numbers."""
    if family in ("m", "p"):
        return {"merge": list(stated), "prune": list(stated)}
    last = max(len(stated) - 1, 1)
    prune = [min(r, max(0, (last + (r - 2) * i) // last)) for i, r in enumerate(stated)]
    return {"merge": [r - p for r, p in zip(stated, prune, strict=True)], "prune": prune}


def judge(
    model: VisionTransformer, vit: Vit, images: Tensor, family: str, stated: Sequence[int]
) -> list[OracleResult]:
    """What the oracle gives for each image."""
    weights, taken = numpy_weights(model), shares(family, stated)
    return [
        oracle_static.run_fixed(
            weights,
            image.numpy(),
            family=family,
            merge=taken["merge"],
            prune=taken["prune"],
            heads=vit.heads,
            eps=vit.norm_eps,
            pool=vit.pool,
            activation=vit.activation,
        )
        for image in images
    ]


def planned(family: str, text: str, vit: Vit) -> Plan:
    """The plan of a rate as it is typed."""
    return rates.plan(families.load(family), rates.parse(text, vit.depth), vit)


def compare(
    case: Case, images: Tensor, family: str, text: str, stated: Sequence[int], opset: int
) -> list[OracleResult]:
    """All forms of a case against the oracle, where its margins allow it."""
    model, vit = random_vits.build(case)
    expected = judge(model, vit, images, family, stated)
    found = forms(model, vit, planned(family, text, vit), images, opset)
    agree(found, expected, decided(expected))
    return expected


def written(
    folder: Path, weights: Mapping[str, Tensor], choices: Choices, **content: Any
) -> Checkpoint:
    """What is read from a file of these weights."""
    torch.save({"state_dict": dict(weights), **content}, folder / "model.pth")
    return load_checkpoint(folder / "model.pth", choices)


def of(checkpoint: Checkpoint, images: Tensor, opset: int) -> list[Form]:
    """All forms of a checkpoint."""
    return forms(checkpoint.model, checkpoint.vit, checkpoint.plan, images, opset)


def judge_budget(
    model: VisionTransformer, vit: Vit, images: Tensor, plan: Plan, keep: Sequence[int]
) -> list[BudgetResult]:
    """What the oracle gives for each image; of the plan it takes the thresholds."""
    weights, thresholds = numpy_weights(model), plan.thresholds()
    return [
        oracle_static.run_budget(
            weights,
            image.numpy(),
            family=plan.family,
            merge=thresholds.get("merge"),
            prune=thresholds.get("prune"),
            keep=keep,
            heads=vit.heads,
            eps=vit.norm_eps,
            pool=vit.pool,
            activation=vit.activation,
        )
        for image in images
    ]
