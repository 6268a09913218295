"""DPC-KNN: patches of nearly the same density, of which rounding says which is the denser one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import compare
from ltmp_export.steps.cluster import eager
from ltmp_export.steps.cluster.step import Cluster
from ltmp_export.steps.tokens import Decision, Tokens

STEP = Cluster("c", tokens=4, neighbours=3, weighted=False)


@pytest.fixture
def decided() -> eager.Clustering:
    """What it sees of twelve patches behind a class token."""
    x = torch.randn(13, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    decision = eager.take(STEP, Tokens(x, torch.ones(13), {}), None, {})[1]
    assert isinstance(decision, eager.Clustering)
    return decision


def turned(decided: eager.Clustering, gap: float) -> tuple[eager.Clustering, Tensor]:
    """Where the first centre but one is less dense by `gap`, and scores where it is denser."""
    apart, density = decided.apart, decided.density.clone()
    denser = int(density.argmax())
    other = int(decided.density.argsort(descending=True)[1])
    found = []
    for more in (-gap, gap):
        density[other] = density[denser] * (1 + more)
        found.append(torch.cat([decided.score[:1], eager._scores(apart, density)]))
    density[other] = density[denser] * (1 - gap)
    return replace(decided, density=density, score=found[0]), found[1]


def test_which_is_the_denser_one_is_rounding(decided: eager.Clustering) -> None:
    own, theirs = turned(decided, 1e-9)
    assert ((own.score - theirs).abs() / own.unit)[1:].max() > 0.01
    followed, off = own.compared(theirs)
    assert 0 < off.max() < 1e-8
    verdict = eager.choose(STEP, theirs)
    assert torch.equal(followed.chosen, verdict.chosen)


def test_or_it_is_not(decided: eager.Clustering) -> None:
    own, theirs = turned(decided, 0.1)
    assert own.compared(theirs)[1][1:].max() > 0.002


def test_short_distances_are_roots_of_errors(decided: eager.Clustering) -> None:
    """Below the root of an error nothing is known of them."""
    theirs = decided.score.clone()
    decided = replace(decided, density=torch.ones(12), apart=decided.apart * 1e-8)
    theirs[1:] = 1e-4 * float(decided.longest)
    assert decided.compared(theirs)[1].max() == pytest.approx(1e-8, rel=1e-3)
    assert decided.compared(-theirs)[1].max() == pytest.approx(1e-8, rel=1e-3)


def test_others_scores_do_not_jump(decided: eager.Clustering) -> None:
    plain = Decision(decided.step, decided.threshold, decided.score, decided.chosen)
    found, off = plain.compared(decided.score * 1.5)
    assert found is plain
    assert off[1:] == pytest.approx(0.5)
    followed, off = decided.compared(decided.score)
    assert torch.equal(followed.score, decided.score)
    assert off.max() < 1e-15


def test_pictures_that_repeat_themselves(
    shallow_digits: Callable[[str], Checkpoint], digit_images: Tensor
) -> None:
    """Without positions halves of a picture are as dense as each other."""
    source = shallow_digits("dpcknn")
    model = copy.deepcopy(source.model)
    torch.nn.init.zeros_(model.pos_embed)
    half = digit_images[:6, ..., :16]
    pixels = torch.cat([half, half], 3).numpy()
    images = Images(pixels, None, tuple("abcdef"), "halves")
    source = replace(source, model=model)
    report = compare.compare(to_onnx(source, opset=17), source, images, batch_sizes=(1,))
    assert report.verdict in ("equal", "borderline"), report.headline()
