"""Exported graph and reference against the slow NumPy oracle, on random small ViTs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ltmp_export import families
from ltmp_export.plan.plan import Plan, dense_plan
from ltmp_export.plan.vit import Vit
from ltmp_export.reference import Reference
from ltmp_export.runtimes import opsets
from tests import tolerances
from tests.makers import random_vits
from tests.makers.exported import Exported, Result, numpy_weights
from tests.makers.random_vits import Case, equal_keys, one_colour
from tests.oracles import oracle

FAMILIES = families.learned()
OPSETS = (16, 17, 18, 20, opsets.newest_opset())
# Each option in one family by turn; a few models in all.
ALL = ("even_tokens", "deep", "all_options")
OPTIONS = [
    (case, family)
    for turn, case in enumerate(random_vits.OPTIONS)
    for family in FAMILIES
    if case.name in ALL or family == FAMILIES[turn % len(FAMILIES)]
]
# Each option at the oldest opset and at another by turn.
DENSE = [
    (case, opset)
    for turn, case in enumerate(random_vits.OPTIONS)
    for opset in (OPSETS[0], OPSETS[1 + turn % (len(OPSETS) - 1)])
]
# Each family with one of the models that pool otherwise or have an odd number of tokens.
POOLED = list(zip(random_vits.POOLED * 2, FAMILIES, strict=False))


def judge(
    model: VisionTransformer, vit: Vit, plan: Plan, images: Tensor
) -> list[oracle.OracleResult]:
    """What the oracle gives for each image."""
    weights = numpy_weights(model)
    thresholds = plan.thresholds()
    return [
        oracle.run(
            weights,
            image.numpy(),
            family=plan.family,
            merge=thresholds.get("merge"),
            prune=thresholds.get("prune"),
            heads=vit.heads,
            eps=vit.norm_eps,
            pool=vit.pool,
            activation=vit.activation,
        )
        for image in images
    ]


def referenced(model: VisionTransformer, plan: Plan, images: Tensor, dtype: torch.dtype) -> Result:
    reference = Reference(model, plan, dtype)
    traces = [reference.run(image) for image in images]
    logits = np.stack([trace.logits.numpy() for trace in traces])
    return Result(logits, np.array([trace.counts for trace in traces]))


def compare(
    model: VisionTransformer, vit: Vit, plan: Plan, images: Tensor, opset: int
) -> tuple[NDArray[np.int64], int]:
    """Compare all forms of the model with the oracle: the batch in one call, one by one, alone.

    Returns:
        The oracle's counts [B, depth], and how many rows had margins that allow a comparison.
    """
    expected = judge(model, vit, plan, images)
    logits = np.stack([result.logits for result in expected])
    counts = np.array([result.counts for result in expected])
    margins = np.array([result.margin for result in expected])
    rows = margins > tolerances.RANDOM_DECIDED
    exported = Exported(vit, plan, model, opset)
    single = Exported(vit, plan, model, opset, batch_size=1)
    for form, result, tolerance in (
        ("one call", exported.run(images), tolerances.RANDOM_EXPORTED),
        ("batch 1", exported.run_in_batches(images, 1), tolerances.RANDOM_EXPORTED),
        ("single images", single.run_in_batches(images, 1), tolerances.RANDOM_EXPORTED),
        (
            "reference",
            referenced(model, plan, images, torch.float32),
            tolerances.RANDOM_REFERENCE,
        ),
        (
            "reference in float64",
            referenced(model, plan, images, torch.float64),
            tolerances.RANDOM_REFERENCE_64,
        ),
    ):
        assert np.isfinite(result.logits).all(), form
        assert (result.counts >= 1).all(), form
        np.testing.assert_array_equal(result.counts[rows], counts[rows], form)
        np.testing.assert_allclose(
            result.logits[rows], logits[rows], rtol=0, atol=tolerance, err_msg=form
        )
    return counts, int(rows.sum())


def frozen(family: str, depth: int, merge: float, prune: Sequence[float] | float) -> Plan:
    """A plan with the same merge threshold in every block."""
    per_block = [prune] * depth if isinstance(prune, float) else list(prune)
    return families.load(family).freeze({"merge": [merge] * depth, "prune": per_block})


@pytest.mark.parametrize(("case", "family"), OPTIONS, ids=str)
def test_options(case: Case, family: str) -> None:
    """Every option of the model; thresholds amid the scores, so that images differ in counts."""
    model, vit = random_vits.build(case)
    images = random_vits.images(vit, case.seed)
    plan = random_vits.middle_plan(model, images, family, case.seed)
    opset = OPSETS[(case.seed + FAMILIES.index(family)) % len(OPSETS)]
    counts, compared = compare(model, vit, plan, images, opset)
    assert compared == len(images)
    assert len(np.unique(counts, axis=0)) > 1
    assert (counts[:, -1] < vit.patches + 1).all()
    assert (counts[:, -2] > 1).any()


@pytest.mark.parametrize(("case", "opset"), DENSE, ids=str)
def test_nothing_reduced(case: Case, opset: int) -> None:
    """The dense graph is timm's own forward, and the oracle's."""
    model, vit = random_vits.build(case)
    images = random_vits.images(vit, case.seed)
    plan = dense_plan(vit.depth)
    result = Exported(vit, plan, model, opset).run(images)
    alone = Exported(vit, plan, model, opset, batch_size=1).run_in_batches(images, 1)
    with torch.inference_mode():
        np.testing.assert_allclose(
            result.logits, model(images).numpy(), rtol=0, atol=tolerances.DENSE_TIMM
        )
        np.testing.assert_allclose(
            alone.logits, model(images).numpy(), rtol=0, atol=tolerances.DENSE_TIMM
        )
    np.testing.assert_array_equal(result.counts, vit.patches + 1)
    if opset == OPSETS[0]:
        _, compared = compare(model, vit, plan, images, opset)
        assert compared == len(images)


# name: merge threshold, prune thresholds of three blocks, tokens left after each block by families
# that prune; families that only merge keep all tokens.
LIMITS: Mapping[str, tuple[float, tuple[float, ...], tuple[str, str, str]]] = {
    "nothing_reduced": (1.0, (0.0, 0.0, 0.0), ("all", "all", "all")),
    "all_one": (1.0, (1.0, 1.0, 1.0), ("one", "one", "one")),
    "class_token_only_from_block_0": (1.0, (1.0, 0.0, 0.0), ("one", "one", "one")),
    "class_token_only_from_block_1": (1.0, (0.0, 1.0, 0.0), ("all", "one", "one")),
    "class_token_only_at_the_end": (1.0, (0.0, 0.0, 1.0), ("all", "all", "one")),
}


@pytest.mark.parametrize(("case", "family"), POOLED, ids=str)
@pytest.mark.parametrize("limit", LIMITS)
def test_limits(case: Case, limit: str, family: str) -> None:
    model, vit = random_vits.build(case)
    images = random_vits.images(vit, case.seed)
    merge, prune, left = LIMITS[limit]
    plan = frozen(family, vit.depth, merge, prune)
    counts, compared = compare(model, vit, plan, images, 17)
    prunes = "prune" in families.load(family).scalars
    expected = [1 if prunes and word == "one" else vit.patches + 1 for word in left]
    np.testing.assert_array_equal(counts, [expected] * len(images))
    assert compared == len(images)


@pytest.mark.parametrize(("case", "family"), POOLED, ids=str)
def test_all_zero(case: Case, family: str) -> None:
    """Any similarity above 0 merges, any importance above 0 is kept."""
    model, vit = random_vits.build(case)
    images = random_vits.images(vit, case.seed)
    plan = frozen(family, vit.depth, 0.0, 0.0)
    counts, compared = compare(model, vit, plan, images, 17)
    merges = "merge" in families.load(family).scalars
    assert ((counts[:, -1] < vit.patches + 1) == merges).all()
    assert compared == len(images)


@pytest.mark.parametrize(
    ("case", "family"), [one for one in POOLED if "merge" in families.load(one[1]).scalars], ids=str
)
def test_everything_mergeable_merges(case: Case, family: str) -> None:
    """All keys lean one way, so all similarities are above 0; down to class token and one more."""
    model, vit = random_vits.build(case)
    for _, bias in random_vits.key_layers(model, vit):
        bias += 3.0
    images = random_vits.images(vit, case.seed)
    plan = frozen(family, vit.depth, 0.0, 0.0)
    counts, compared = compare(model, vit, plan, images, 17)
    left = [vit.patches + 1]
    for _ in range(vit.depth):
        left.append(left[-1] // 2 + 1)  # all odd rows and the class token
    np.testing.assert_array_equal(counts, [left[1:]] * len(images))
    assert compared == len(images)


@pytest.mark.parametrize(("case", "family"), POOLED, ids=str)
def test_one_colour(case: Case, family: str) -> None:
    """Images of one colour: tokens differ by their position only."""
    model, vit = random_vits.build(case)
    images = one_colour(vit)
    plan = random_vits.middle_plan(model, images, family, case.seed)
    counts, compared = compare(model, vit, plan, images, 17)
    assert (counts[:, -1] < vit.patches + 1).any()
    assert compared == len(images)


# merge and prune threshold: the least number of the seven rows that have a margin, by family. The
# five images of one colour lose it where merged sums are rounded or 1.0 is decided upon.
COMPARED: Mapping[tuple[float, float], Mapping[str, int]] = {
    (0.5, 0.0): {"ltm": 2, "ltmp": 2, "ltp": 7, "ltpm": 2},
    (0.5, 0.03): {"ltm": 2, "ltmp": 2, "ltp": 7, "ltpm": 2},
    (1.0, 0.0): {"ltm": 2, "ltmp": 2, "ltp": 7, "ltpm": 2},
    (1.0, 1.0): {"ltm": 2, "ltmp": 2, "ltp": 7, "ltpm": 7},
    (0.999, 0.2): {"ltm": 2, "ltmp": 7, "ltp": 7, "ltpm": 7},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("merge", "prune"), COMPARED)
def test_one_colour_without_positions(family: str, merge: float, prune: float) -> None:
    """Every patch token is the same; two ordinary images stand in the same batch.

    Pruning takes all equal tokens or none, so whatever partner a tie chooses, counts agree.
    """
    model, vit = random_vits.build(random_vits.TIED)
    images = torch.cat([one_colour(vit), random_vits.images(vit, 1, batch=2)])
    plan = frozen(family, vit.depth, merge, prune)
    _, compared = compare(model, vit, plan, images, 17)
    assert compared >= COMPARED[merge, prune][family]


@pytest.mark.parametrize("family", [f for f in FAMILIES if "merge" in families.load(f).scalars])
def test_equal_tokens_merge_to_the_same_wherever(family: str) -> None:
    """Among equal tokens the partner changes no logit, so rows without a margin agree as well."""
    model, vit = random_vits.build(random_vits.TIED)
    images = one_colour(vit)
    plan = frozen(family, vit.depth, 0.5, 0.0)
    expected = judge(model, vit, plan, images)
    for result in (
        Exported(vit, plan, model, 17).run(images),
        referenced(model, plan, images, torch.float32),
    ):
        np.testing.assert_array_equal(result.counts, [[6, 4, 3]] * 5)
        np.testing.assert_allclose(
            result.logits,
            np.stack([row.logits for row in expected]),
            rtol=0,
            atol=tolerances.RANDOM_EXPORTED,
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_one_token_beside_many(family: str) -> None:
    """One image, of equal tokens, loses all it can in block 0; its neighbours keep up to seven.

    Where that image merges on, its ties leave it without a margin.
    """
    model, vit = random_vits.build(random_vits.TIED)
    images = random_vits.images(vit, 1)
    images[2] = 0.5
    plan, least, compared_rows = frozen(family, vit.depth, 0.95, 0.0), 3, 4
    if "prune" in families.load(family).scalars:
        trace = Reference(model, frozen("ltp", vit.depth, 1.0, 0.0), torch.float64).run(images[2])
        tied = float(trace.decisions[0][0].score[1:].max())
        plan = frozen(family, vit.depth, 0.95, [tied * 1.02, 0.0, 0.0])
        least, compared_rows = 1, 5
    counts, compared = compare(model, vit, plan, images, 17)
    assert counts[2, -1] == least
    assert counts[:, -1].max() >= 7
    assert compared >= compared_rows


@pytest.mark.parametrize(("case", "family"), POOLED, ids=str)
def test_tie_goes_to_the_lowest_row(case: Case, family: str) -> None:
    """All that merges in a block goes into its first odd row, which outweighs the rest."""
    model, vit = equal_keys(case)
    images = random_vits.images(vit, case.seed)
    plan = frozen(family, vit.depth, 0.5, [0.0, 0.3, 0.0])
    counts, compared = compare(model, vit, plan, images, 17)
    tokens = vit.patches + 1
    half = tokens // 2 + 1
    expected = {
        "ltm": [half, half // 2 + 1, (half // 2 + 1) // 2 + 1],
        "ltp": [tokens, 1, 1],
        "ltmp": [half, 2, 2],
        "ltpm": [half, 2, 2],
    }
    np.testing.assert_array_equal(counts, [expected[family]] * len(images))
    assert compared == len(images)


SIXTEEN = Case("sixteen_tokens", 24, {"img_size": (12, 20)})  # importances are exactly 1/16


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize(
    ("family", "merge", "prune", "left"),
    [
        ("ltm", 1.0, 0.0, 16),  # a similarity of exactly 1 is not above 1
        ("ltm", 0.99999, 0.0, 9),
        ("ltp", 1.0, 1 / 16, 1),  # an importance of exactly 1/16 is not above 1/16
        ("ltp", 1.0, 0.99999 / 16, 16),
        ("ltmp", 1.0, 1 / 16, 1),
        ("ltpm", 1.0, 1 / 16, 1),
    ],
)
def test_score_equal_to_its_threshold(
    opset: int, family: str, merge: float, prune: float, left: int
) -> None:
    """Strictly above merges, strictly above stays; on the threshold is neither."""
    model, vit = equal_keys(SIXTEEN)
    images = random_vits.images(vit, SIXTEEN.seed)
    plan = frozen(family, vit.depth, merge, prune)
    exported = Exported(vit, plan, model, opset)
    for result in (
        exported.run(images),
        exported.run_in_batches(images, 1),
        Exported(vit, plan, model, opset, batch_size=1).run_in_batches(images, 1),
        referenced(model, plan, images, torch.float32),
        referenced(model, plan, images, torch.float64),
    ):
        np.testing.assert_array_equal(result.counts[:, 0], left)
        assert np.isfinite(result.logits).all()
    assert [row.counts[0] for row in judge(model, vit, plan, images)] == [left] * len(images)
