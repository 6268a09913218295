"""Average pooling after merging: a token counts as often as it stands for a patch (METHOD §1)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ltmp_export import families
from ltmp_export.backbones.vit import describe
from ltmp_export.backbones.vit.class_and_mean import ClassAndMean
from ltmp_export.backbones.vit.lower import lower
from ltmp_export.plan.plan import Plan, resizes
from ltmp_export.plan.vit import Vit
from ltmp_export.precision.formats import FP16, INT8, Precision
from ltmp_export.reference import Reference
from ltmp_export.timing.literal import LiteralViT
from ltmp_export.training.forms import ALIGNED, FORMS
from ltmp_export.training.model import MaskedVit, State
from tests import tolerances
from tests.backbones import test_oracle
from tests.makers import lower_precision, random_vits
from tests.makers.exported import Exported, numpy_weights
from tests.makers.random_vits import Case, bare
from tests.oracles import agreement

MERGING = [f for f in families.learned() if "merge" in families.load(f).scalars]
COUNTED = [f for f in families.counted() if "merge" in families.load(f).counts]
PRUNING = [f for f in MERGING if "prune" in families.load(f).scalars]
AVERAGE = Case("avg", 41, {"img_size": (24, 24), "global_pool": "avg", "fc_norm": False})
ALIKE = Case("avg, patches alike", 15, AVERAGE.kwargs | {"no_embed_class": True})
GREY = 2  # the image of one colour that loses all its patches


def with_an_empty_image(family: str) -> tuple[VisionTransformer, Vit, Plan, Tensor]:
    """Five images; all tokens of one are alike and go in block 0, those of the others merge."""
    model, vit = random_vits.build(ALIKE)
    model.pos_embed.zero_()
    images = random_vits.images(vit, ALIKE.seed)
    images[GREY] = 0.5
    none = test_oracle.frozen("ltp", vit.depth, 1.0, 0.0)
    trace = Reference(model, none, torch.float64).run(images[GREY])
    tied = float(trace.decisions[0][0].score[1:].max())
    return model, vit, test_oracle.frozen(family, vit.depth, 0.6, [tied * 1.02, 0.0, 0.0]), images


def unweighted(model: VisionTransformer, plan: Plan, image: Tensor) -> Tensor:
    """The logits of a plain mean over the tokens that are left."""
    rows = model.norm(Reference(model, plan).run(image).tokens[-1])[1:]
    logits: Tensor = model.head(rows.mean(0))
    return logits


@pytest.mark.parametrize("opset", [16, 17])
@pytest.mark.parametrize("family", MERGING)
def test_thresholds(family: str, opset: int) -> None:
    model, vit = random_vits.build(AVERAGE)
    images = random_vits.images(vit, AVERAGE.seed)
    plan = random_vits.middle_plan(model, images, family, AVERAGE.seed)
    _, compared = test_oracle.compare(model, vit, plan, images, opset)
    assert compared == len(images)
    for image in images:
        apart = (unweighted(model, plan, image) - Reference(model, plan).run(image).logits).abs()
        assert apart.max() > 100 * tolerances.RANDOM_EXPORTED


@pytest.mark.parametrize("family", PRUNING)
def test_no_patch_left(family: str) -> None:
    model, vit, plan, images = with_an_empty_image(family)
    counts, compared = test_oracle.compare(model, vit, plan, images, 17)
    assert compared == len(images)
    assert counts[GREY, -1] == 1
    assert np.delete(counts, GREY, 0).min() > 1
    logits = Reference(model, plan).run(images[GREY]).logits
    torch.testing.assert_close(logits, model.head.bias, rtol=0, atol=0)


@pytest.mark.parametrize("family", COUNTED)
def test_fixed_rates(family: str) -> None:
    _, vit = random_vits.build(AVERAGE)
    images = random_vits.images(vit, AVERAGE.seed)
    agreement.compare(AVERAGE, images, family, "6", (6, 6, 6), 17)


@pytest.mark.parametrize("family", PRUNING)
@pytest.mark.parametrize("share", [1.0, 0.5], ids=["ample", "tight"])
def test_budgets(family: str, share: float) -> None:
    """Slots that are dead, and there may be any number of them, have no weight."""
    model, vit, plan, images = with_an_empty_image(family)
    keep = [int(vit.tokens * share)] * vit.depth
    expected = agreement.judge_budget(model, vit, images, plan, keep)
    found = agreement.forms(model, vit, plan.within(keep), images, 17)
    rows = agreement.decided(expected)
    assert rows[GREY]
    assert expected[GREY].counts[-1] == 1
    agreement.agree(found, expected, rows)


@pytest.mark.parametrize("family", ["ltm", "mp", "ltmp"])
def test_other_images_change_nothing(family: str) -> None:
    """In int8 an image's logits are its own bit for bit."""
    model, vit, plan, images = with_an_empty_image("ltmp")
    if family == "mp":
        plan = agreement.planned(family, "3", vit)
    elif family == "ltm":
        plan = test_oracle.frozen(family, vit.depth, 0.6, 0.0)
    checkpoint = bare(model, vit, plan)
    prepared, precision = lower_precision.prepared(checkpoint, images.numpy(), "static")
    assert precision.kind == INT8
    file = lower(vit, plan, numpy_weights(prepared.model), opset=17, precision=precision)
    together, alone = (lower_precision.in_batches(file, images.numpy(), size) for size in (5, 1))
    np.testing.assert_array_equal(together, alone)


def test_float16() -> None:
    """Pooling is float32 in every precision: sums of many patches have no room in float16."""
    model, vit = random_vits.build(AVERAGE)
    images = random_vits.images(vit, AVERAGE.seed)
    plan = agreement.planned("m", "6", vit)
    file = lower(vit, plan, numpy_weights(model), opset=17, precision=Precision(FP16))
    wanted = np.stack([Reference(model, plan).run(image).logits.numpy() for image in images])
    errors = np.abs(lower_precision.in_batches(file, images.numpy(), 5) - wanted).max(1)
    assert np.median(errors) < 0.01  # one image may decide otherwise
    pooled = {
        kind for name, kind in lower_precision.types(file).items() if name.startswith("head/Div")
    }
    assert pooled == {TensorProto.FLOAT}


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
@pytest.mark.parametrize("family", MERGING)
def test_masked(family: str, form: object) -> None:
    """Both forms weigh by size and mask; sources that merged are dead with a size of their own."""
    model, vit = random_vits.build(AVERAGE)
    images = random_vits.images(vit, AVERAGE.seed)
    plan = random_vits.middle_plan(model, images, family, AVERAGE.seed)
    assert isinstance(form, type(ALIGNED))
    masked = MaskedVit(model, families.load(family), plan.thresholds(), form).eval()
    with torch.enable_grad():  # rows of the dead stay
        state = masked.embed(images)
        for block in range(vit.depth):
            tokens = masked.attend(block, state)
            for kind in masked.steps:
                tokens = masked.step(kind, tokens, masked.thresholds[kind][block])
            state = masked.finish(block, tokens)
        found = masked.classify(state).detach().numpy()
    assert ((state.size > 1) & (state.alive > 0)).any()
    np.testing.assert_allclose(found, pooled_by_hand(model, state), atol=tolerances.MASKED)


def pooled_by_hand(model: VisionTransformer, state: State) -> np.ndarray:
    """Each living patch token as often as it stands for a patch, then the mean; then the head."""
    rows = []
    for x, size, alive in zip(*(part.detach() for part in state[:3]), strict=True):
        living = alive[1:] > 0
        repeated = model.norm(x)[1:][living].repeat_interleave(size[1:][living].long(), 0)
        rows.append(model.head(repeated.mean(0)).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("family", families.learned())
def test_literal(family: str) -> None:
    model, vit = random_vits.build(AVERAGE)
    images = random_vits.images(vit, AVERAGE.seed)
    plan = random_vits.middle_plan(model, images, family, AVERAGE.seed)
    if family not in MERGING:  # no patch is left; merging word for word fails on a single token
        plan = test_oracle.frozen(family, vit.depth, 1.0, [0.0, 0.0, 1.0])
    literal = LiteralViT(model, plan).eval()
    for image in images:
        wanted = Reference(model, plan).run(image).logits
        np.testing.assert_allclose(literal(image[None])[0], wanted, atol=1e-5)


def test_pruning_alone_is_a_plain_mean() -> None:
    model, vit = random_vits.build(AVERAGE)
    image = random_vits.images(vit, AVERAGE.seed)[0]
    for plan in (
        random_vits.middle_plan(model, image[None], "ltp", 1),
        agreement.planned("p", "6", vit),
    ):
        assert not any(map(resizes, plan.blocks))
        wanted = unweighted(model, plan, image)
        torch.testing.assert_close(Reference(model, plan).run(image).logits, wanted)


@pytest.mark.parametrize("family", ["ltmp", "mp"])
def test_class_token_and_mean(family: str) -> None:
    """DINOv2's classifier: what those of the class token and of the mean say, added."""
    kwargs = {**AVERAGE.kwargs, "global_pool": "token"}
    token, vit = random_vits.build(Case("token", AVERAGE.seed, kwargs))
    mean, of_mean = random_vits.build(AVERAGE)
    mean.head.bias.zero_()
    shape = random_vits._DEFAULTS | {k: v for k, v in kwargs.items() if k != "fc_norm"}
    both = ClassAndMean(**shape).eval().requires_grad_(False)
    head = torch.cat([token.head.weight, mean.head.weight], 1)
    mean.load_state_dict({**token.state_dict(), **mean.head.state_dict(prefix="head.")})
    both.load_state_dict({**token.state_dict(), "head.weight": head})
    images = random_vits.images(vit, AVERAGE.seed)
    if family == "ltmp":
        plan = random_vits.middle_plan(token, images, family, AVERAGE.seed)
    else:
        plan = agreement.planned(family, "6", vit)
    apart = [[Reference(m, plan).run(image).logits for image in images] for m in (token, mean)]
    expected = torch.stack(apart[0]) + torch.stack(apart[1])
    found = describe.describe(both, "both")
    assert (found.pooled_width, of_mean.pooled_width) == (2 * vit.width, vit.width)
    reference = torch.stack([Reference(both, plan).run(image).logits for image in images])
    torch.testing.assert_close(reference, expected, rtol=0, atol=tolerances.RANDOM_REFERENCE)
    for size in (None, 1):
        file = lower(found, plan, numpy_weights(both), opset=17, batch_size=size)
        logits = lower_precision.in_batches(file, images.numpy(), size or len(images))
        assert np.abs(logits - expected.numpy()).max() < tolerances.RANDOM_EXPORTED
    if family == "ltmp":
        literal = torch.cat([LiteralViT(both, plan)(image[None]) for image in images])
        torch.testing.assert_close(literal, expected, rtol=0, atol=tolerances.RANDOM_REFERENCE)


@pytest.mark.parametrize("batch_size", [None, 1])
@pytest.mark.parametrize("pool", ["avg", "map"])
def test_a_broken_image_has_no_class(pool: str, batch_size: int | None) -> None:
    """A NaN is above no threshold: all patches go, and the answer is NaN all the same."""
    kwargs = {**AVERAGE.kwargs, "global_pool": pool}
    model, vit = random_vits.build(Case(f"{pool}, broken", AVERAGE.seed, kwargs))
    images = random_vits.images(vit, AVERAGE.seed)[:2]
    images[1, :, 3, 3] = torch.nan
    file = Exported(
        vit, random_vits.middle_plan(model, images[:1], "ltmp", 1), model, 17, batch_size
    )
    found = file.run_in_batches(images, batch_size or 2)
    assert np.isfinite(found.logits[0]).all()
    assert np.isnan(found.logits[1]).all()
    assert found.counts[1, -1] == vit.prefix == 1
