"""What became of each patch, against an independent composition: rows in front, places, precisions.

`token_map` and `sizes` are whole numbers, and exact in every precision against the decisions that
the file itself took; `tokens` and `dense` are those of the oracle where float32 decides as it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ltmp_export import families
from ltmp_export.calibration import quantise
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.parity.replay import Observer
from ltmp_export.parity.runs import Run
from ltmp_export.plan.outputs import DENSE, SIZES, TOKEN_MAP, TOKENS, default
from ltmp_export.plan.plan import Plan
from ltmp_export.precision.formats import FP16, INT8, Precision
from ltmp_export.runtimes.session import Session
from ltmp_export.steps.fuse.step import Fuse
from tests.backbones.test_positioned import FORMS, MERGE, PRUNE, learned
from tests.makers import positioned, random_vits
from tests.makers.exported import numpy_weights
from tests.makers.positioned import BEIT, DINO, GAP
from tests.makers.protected import ROWS, images_of, model_of
from tests.makers.random_vits import Case
from tests.oracles import agreement
from tests.oracles.oracle_owners import Owned, composed, run_owned, run_placed
from tests.tolerances import RANDOM_EXPORTED

OWN = (TOKENS, SIZES, TOKEN_MAP, DENSE)
BATCHES = (1, 3, 7)


def given(proto: Any, pixels: NDArray[np.float32], size: int) -> list[dict[str, NDArray[Any]]]:
    """Of each image what a file gives, in batches of a size."""
    session = Session(proto, threads=1)
    found = []
    for start in range(0, len(pixels), size):
        values = session.run(pixels[start : start + size])
        found += [dict(zip(OWN, row, strict=True)) for row in zip(*values, strict=True)]
    return found


def require(found: Mapping[str, NDArray[Any]], wanted: Owned, atol: float) -> None:
    """What a file gives of an image is what the oracle says; behind its own tokens is nothing."""
    kept = len(wanted.tokens)
    np.testing.assert_array_equal(found[TOKEN_MAP], wanted.token_map)
    np.testing.assert_array_equal(found[SIZES][:kept], wanted.sizes)
    assert not found[SIZES][kept:].any()
    assert not found[TOKENS][kept:].any()
    np.testing.assert_allclose(found[TOKENS][:kept], wanted.tokens, rtol=0, atol=atol)
    grid = found[DENSE].reshape(len(found[DENSE]), -1).T  # row by row
    np.testing.assert_allclose(grid, wanted.dense, rtol=0, atol=atol)


@pytest.mark.parametrize("family", ["ltmp", "ltpm"])
@pytest.mark.parametrize("case", ROWS, ids=str)
def test_rows_in_front(case: Case, family: str) -> None:
    """Patches merged, pruned, and pruned after they had merged."""
    plan = random_vits.middle_plan(model_of(case)[0], images_of(case), family, case.seed)
    expected = required(case, family, plan)
    assert any((one.token_map < 0).any() for one in expected)
    assert any((one.sizes > 1).any() for one in expected)


@pytest.mark.parametrize("family", ["ltmp", "ltpm"])
def test_all_patches_go_at_the_end(family: str) -> None:
    """What was merged before is told as it stood when it went."""
    case = next(case for case in ROWS if case.name == "two, distilled")
    plan = random_vits.middle_plan(model_of(case)[0], images_of(case), family, case.seed)
    thresholds = plan.thresholds()
    last = {"prune": [*thresholds["prune"][:-1], 1.0]}
    expected = required(case, family, families.load(family).freeze(thresholds | last))
    assert all((one.token_map < 0).all() for one in expected)


def required(case: Case, family: str, plan: Plan) -> list[Owned]:
    """What the oracle says of the images that rounding cannot decide; so says the file."""
    (model, vit), images = model_of(case), images_of(case)
    thresholds, weights = plan.thresholds(), numpy_weights(model)
    expected = [
        run_owned(
            weights, image.numpy(), family=family, merge=thresholds["merge"],
            prune=thresholds["prune"], heads=vit.heads,
        )
        for image in images
    ]  # fmt: skip
    rows = [n for n, one in enumerate(expected) if one.margin > agreement.DECIDED]
    assert len(rows) >= 5
    proto = to_onnx(random_vits.bare(model, vit, plan), opset=17, outputs=OWN)
    for size in BATCHES:
        found = given(proto, images.numpy(), size)
        for row in rows:
            require(found[row], expected[row], RANDOM_EXPORTED)
    return expected


@pytest.mark.parametrize("name", [DINO, GAP, BEIT, positioned.CLIP])
def test_places(tmp_path: Path, name: str) -> None:
    """Registers of Eva's models, no class token, and BEiT's bias."""
    checkpoint = learned(tmp_path, name)
    pixels = positioned.images(7).numpy()
    weights = numpy_weights(positioned.model(name))
    geometry = checkpoint.vit
    proto = to_onnx(checkpoint, opset=17, outputs=OWN)
    found = {size: given(proto, pixels, size) for size in BATCHES}
    pruned = merged = decided = 0
    for number, image in enumerate(pixels):
        wanted = run_placed(
            weights, image.astype(np.float64), FORMS[name], merges=MERGE, prunes=PRUNE,
            heads=positioned.HEADS, eps=geometry.norm_eps, activation=geometry.activation,
        )  # fmt: skip
        if wanted.margin < agreement.DECIDED:
            continue
        decided += 1
        pruned += int((wanted.token_map < 0).sum())
        merged += int((wanted.sizes > 1).sum())
        for each in found.values():
            require(each[number], wanted, 1e-4)
    assert min(decided, pruned, merged) > 3


def headless(case: Case) -> tuple[Any, Any]:
    return random_vits.build(Case(case.name, case.seed, case.kwargs | {"num_classes": 0}))


def subject(tmp_path: Path, name: str) -> tuple[Checkpoint, Images]:
    """A checkpoint that merges and prunes, and four images."""
    if name in FORMS:
        checkpoint, pixels = learned(tmp_path, name), positioned.images(4)
    else:
        case = next(case for case in ROWS if case.name == name.removesuffix(", budget"))
        (model, vit), pixels = headless(case), images_of(case)[2:6]
        plan = random_vits.middle_plan(model, pixels, "ltmp", case.seed)
        if name.endswith("budget"):
            plan = plan.within([9, 6])
        checkpoint = random_vits.bare(model, vit, plan)
    return checkpoint, Images(pixels.numpy(), None, tuple("abcd"), "noise")


@pytest.mark.parametrize("kind", [FP16, INT8])
@pytest.mark.parametrize("name", ["one, budget", "no row", "five, no class token", DINO, BEIT])
def test_lower_precision(tmp_path: Path, name: str, kind: str) -> None:
    """The check is content, and whole numbers are those of the decisions that the file took."""
    checkpoint, images = subject(tmp_path, name)
    source, precision = checkpoint, Precision(kind)
    if kind == INT8:
        source, precision = quantise.prepare(checkpoint, images, precision)
    outputs = (*default(checkpoint.geometry), *OWN)
    proto = to_onnx(source, opset=17, precision=precision, outputs=outputs)
    report = compare.compare(proto, checkpoint, images, batch_sizes=(1, 3), precision=precision)
    assert report.verdict in ("equal", "bounded"), report.headline()
    assert {*report.comparisons[0].errors} == {*outputs}
    require_composed(proto, checkpoint, images, precision)


def require_composed(
    proto: Any, checkpoint: Checkpoint, images: Images, precision: Precision
) -> None:
    """Of images in batches of three a file tells what its own decisions come to."""
    observer = Observer(proto, checkpoint, images, (), precision)
    vit, gone, merged = checkpoint.vit, 0, 0
    for number in range(len(images)):
        record = observer.record(Run(3), number)
        found = record.given
        wanted = composed(checkpoint.plan.blocks, record.choices(), vit.patches, vit.prefix)
        np.testing.assert_array_equal(found[TOKEN_MAP], wanted)
        kept = record.counts[-1]
        owned = np.bincount(wanted[wanted >= 0], minlength=kept)
        np.testing.assert_array_equal(
            found[SIZES][:kept], [1] * vit.prefix + [*owned[vit.prefix :]]
        )
        grid = found[DENSE].reshape(vit.width, -1).T
        living = wanted >= 0
        np.testing.assert_array_equal(grid[living], found[TOKENS][wanted[living]])
        gone += int((~living).sum())
        merged += int((owned > 1).sum())
    assert bool(gone) == any(step.drops for block in checkpoint.plan.blocks for step in block)
    assert bool(merged) == any(step.joins for block in checkpoint.plan.blocks for step in block)


def fixed(vit: Any, family: str) -> Plan:
    """Some go in the first block, and more in the second."""
    if family == "evit":
        return Plan("evit", ((Fuse(0.6),), (Fuse(0.5),)))
    return agreement.planned(family, "3,2", vit)


@pytest.mark.parametrize(
    ("rows", "family"),
    [(rows, family) for rows in (0, 2, 5) for family in ("m", "p", "mp", "pm")]
    + [(2, "evit"), (5, "evit")],
)
def test_numbers_known_beforehand(rows: int, family: str) -> None:
    """Also in the order of scores, and of EViT's token that all others become."""
    case = next(case for case in ROWS if model_of(case)[1].prefix == rows)
    (model, vit), pixels = model_of(case), images_of(case)
    checkpoint = random_vits.bare(model, vit, fixed(vit, family))
    proto = to_onnx(checkpoint, opset=17, outputs=OWN)
    images = Images(pixels.numpy(), None, tuple("abcdefg"), "noise")
    require_composed(proto, checkpoint, images, Precision())
