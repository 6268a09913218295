"""PatchMerger's graphs and the reference against the slow NumPy oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ltmp_export.statements.choices import Choices
from tests.conftest import cluster_layers
from tests.makers import random_vits
from tests.makers.exported import numpy_weights
from tests.makers.random_vits import EVEN
from tests.makers.vit_pytorch import random_weights
from tests.oracles import oracle_patchmerger
from tests.oracles.agreement import OPSETS, agree, of, written


@pytest.mark.parametrize("opset", [16, 17])
@pytest.mark.parametrize(
    ("tokens", "merge_at", "scale"),
    [((4,), (0,), None), ((5,), (1,), "sqrt"), ((12,), (2,), "one"), ((5, 2), (1, 2), "sqrt"),
     ((5, 1), (0, 2), "one")],
)  # fmt: skip
def test_patchmerger(
    tmp_path: Path, opset: int, tokens: tuple[int, ...], merge_at: tuple[int, ...], scale: str
) -> None:
    """Fewer mixtures than patches, and more; the scale is 1 unless stated."""
    model, vit = random_vits.build(EVEN)
    mergers = cluster_layers(vit.width, *tokens)
    choices = Choices(num_heads=2, image_size=(12, 12), merge_at=merge_at, merge_scale=scale)
    checkpoint = written(tmp_path, model.state_dict() | mergers, choices)
    images = random_vits.images(vit, 107)
    weights = numpy_weights(model) | {name: value.numpy() for name, value in mergers.items()}
    factor = vit.width**-0.5 if scale == "sqrt" else 1.0
    expected = [
        oracle_patchmerger.run_patchmerger(
            weights, image.numpy(), heads=2, merge_at=merge_at, scale=factor, dialect="deit"
        )
        for image in images
    ]
    assert expected[0].counts[-1] == 1 + tokens[-1]
    agree(of(checkpoint, images, opset), expected, np.full(len(images), True))


@pytest.mark.parametrize("opset", [16, OPSETS[-1]])
@pytest.mark.parametrize(
    ("heads", "stated", "merge_at", "scale"),
    [
        ({"heads": 2, "head_width": 12}, 2, None, None),
        ({"heads": 2, "head_width": 64}, None, (2,), "one"),  # behind the last layer
        ({"heads": 1, "head_width": 24}, None, (1,), "sqrt"),  # no projection: one head
    ],
    ids=["stated", "of width 64", "one"],
)
def test_vit_pytorch(
    tmp_path: Path,
    opset: int,
    heads: dict[str, int],
    stated: int | None,
    merge_at: tuple[int, ...] | None,
    scale: str | None,
) -> None:
    weights = random_weights(**heads)
    usual = True if stated is None else None
    choices = Choices(num_heads=stated, merge_at=merge_at, merge_scale=scale, assume_defaults=usual)
    checkpoint = written(tmp_path, weights, choices)
    assert checkpoint.vit.heads == heads["heads"]
    images = random_vits.images(checkpoint.vit, 108)
    expected = [
        oracle_patchmerger.run_patchmerger(
            {name: value.numpy() for name, value in weights.items()},
            image.numpy(),
            heads=heads["heads"],
            merge_at=merge_at,
            scale=1.0 if scale == "one" else None,
            dialect="vit_pytorch",
        )
        for image in images
    ]
    agree(of(checkpoint, images, opset), expected, np.full(len(images), True))
