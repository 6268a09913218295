"""What of each patch is in each token, of methods that mix them: by hand, and as pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ltmp_export.drawing import heat
from ltmp_export.drawing.mixed import Mixture, Mixtures
from ltmp_export.errors import InputError
from ltmp_export.plan.plan import Plan
from ltmp_export.precision.formats import FP16, Precision
from ltmp_export.steps.patch_merge.step import PatchMerge
from tests.backbones.test_outputs import _masked, given, model, plans
from tests.drawing.test_owned import file
from tests.makers.exported import numpy_weights


def merged_at_once() -> Plan:
    """PatchMerger in front of the first block, and of the head."""
    plan = plans("patchmerger")["static"]
    first, last = plan.before[1], plan.before[3]
    assert isinstance(first, PatchMerge)
    drawn = {name: tensor.clone() for name, tensor in plan.parameters.items()}
    return replace(plan, before={0: first, 3: last}, parameters=drawn)


@pytest.mark.parametrize("kind", ["fp32", FP16])
def test_shares_are_what_the_formula_says(tmp_path: Path, kind: str) -> None:
    plan = merged_at_once()
    mixtures = Mixtures(file(tmp_path, plan, precision=Precision(kind)), threads=1)
    assert mixtures.blocks == (0, 3)
    w = numpy_weights(model()[0])
    parts = {
        name.removeprefix("cluster_layers.0."): tensor.numpy().astype(np.float64)
        for name, tensor in plan.parameters.items()
    }
    for pixels in given().pixels[:2]:
        first, last = mixtures.of(pixels)
        x = embedded(w, pixels)
        normed = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
        normed = normed * parts["norm.weight"] + parts["norm.bias"]
        scores = np.exp(0.25 * parts["queries"] @ normed.T)
        wanted = scores / scores.sum(1, keepdims=True)
        np.testing.assert_allclose(first.shares, wanted, atol=1e-5 if kind == "fp32" else 0.02)
        assert (first.place, last.place) == ("before block 0", "before the head")
        assert last.shares.shape == (2, 9)
        np.testing.assert_allclose(last.shares.sum(1), 1, atol=0.01)


def embedded(w: dict[str, np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """[patches, C] before the first block, in float64."""
    kernel = w["patch_embed.proj.weight"].astype(np.float64)
    size = kernel.shape[-1]
    rows, columns = pixels.shape[1] // size, pixels.shape[2] // size
    cut = pixels.reshape(len(pixels), rows, size, columns, size).transpose(1, 3, 0, 2, 4)
    flat = cut.reshape(rows * columns, -1) @ kernel.reshape(len(kernel), -1).T
    return np.asarray(flat + w["patch_embed.proj.bias"] + w["pos_embed"][0, 1:])


def test_a_soft_mask_that_does_not_move_is_the_first_mask(tmp_path: Path) -> None:
    plan = _masked(hard=False)
    plan.parameters["blocks.1.ltm.step"].zero_()
    (found,) = Mixtures(file(tmp_path, plan), threads=1).of(given().pixels[0])
    mask = plan.parameters["ltm.mask0"].numpy()
    np.testing.assert_allclose(found.shares, (mask / mask.sum(0)).T, atol=1e-5)
    assert found.place == "in block 1"
    moving = _masked(hard=False)
    moving.parameters["blocks.1.ltm.step"].fill_(50.0)
    (moved,) = Mixtures(file(tmp_path, moving), threads=1).of(given().pixels[0])
    assert moved.shares.min() == 0  # relu
    assert np.abs(moved.shares - found.shares).max() > 0.01
    np.testing.assert_allclose(moved.shares.sum(1), 1, atol=1e-4)


def test_constant_matrices(tmp_path: Path) -> None:
    plan = plans("pmvit")["static"]
    found = Mixtures(file(tmp_path, plan), threads=1).of(given().pixels[0])
    assert {one.block for one in found} == set(plan.before)
    for one in found:
        (matrix,) = (
            tensor.numpy()
            for name, tensor in plan.parameters.items()
            if name.endswith("merge_matrix") and f".{one.block}." in name
        )
        np.testing.assert_array_equal(one.shares, matrix[1:, 1:])


def test_what_mixes_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"family m mixes no tokens.*drop --heat"):
        Mixtures(file(tmp_path, plans("m")["static"]))


def test_a_picture_of_one_token_and_its_words() -> None:
    seen = np.full((8, 12, 3), 100, np.uint8)
    shares = np.array([[0.0, 0.25, 0.75, 0.0, 0.0, 0.0], np.zeros(6)])
    drawn = np.asarray(heat.draw(seen, shares[0], (2, 3), 120))
    assert drawn.shape == (80, 120, 3)
    patches = drawn[20::40, 20::40].reshape(6, 3).astype(int)
    assert (patches[[3, 4, 5]] == patches[0]).all()
    brightness = patches.sum(1)
    assert brightness[0] < brightness[1] < brightness[2]
    assert patches[0, 2] > patches[0, 0]  # blue
    assert patches[2, 0] > patches[2, 2]  # yellow
    mixture = Mixture(1, "in block 1", (2, 3), shares[[0, 1, 0, 0, 0]])
    mosaic = np.asarray(heat.mosaic(seen, mixture, [0, 2, 4], 244))
    assert mosaic.shape == (164, 244, 3)
    for top, left in ((0, 0), (0, 124), (84, 0)):
        np.testing.assert_array_equal(mosaic[top : top + 80, left : left + 120], drawn)
    assert (mosaic[84:, 124:] == 255).all()
    told = heat.alternative("a.png", Path("m.onnx"), Mixture(1, "in block 1", (2, 3), shares))
    assert told == (
        "a.png through m.onnx: 2 tokens made in block 1. Token 0 is most of the patch in row 1 "
        "column 3; half of it is of 1 of 6 patches. Token 1 is empty."
    )
