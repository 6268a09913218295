"""The information-bottleneck term: by hand, and from which epoch on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ltmp_export.training.bottleneck import Bottleneck
from ltmp_export.training.weights import BOTTLENECK, DISTILLATION
from tests.makers.trainers import ALONE, STATIC, static_trainer

CLASSES, WIDTH = 4, 3
LABELS = np.array([0, 2, 2, 1, 0, 2])  # none of class 3


def shares(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """φ of each row, of the classes that have a centre."""
    apart = ((features[:, None] - centres[None]) ** 2).mean(2)
    raised = np.exp(-apart)
    return np.asarray(raised / raised.sum(1, keepdims=True))


def means(values: np.ndarray) -> np.ndarray:
    return np.stack([values[label == LABELS].mean(0) for label in range(3)])


def test_by_hand() -> None:
    """Centres are those of the epoch before; Q was counted with the centres before them."""
    rng = np.random.default_rng(0)
    epochs = [rng.normal(size=(2, 6, WIDTH)) for _ in range(3)]
    one = Bottleneck(CLASSES, WIDTH, torch.device("cpu"))
    labels = torch.from_numpy(LABELS)
    for entering, leaving in torch.from_numpy(np.stack(epochs[:2])).float():
        one.begin()
        assert not one.ready
        for rows in (slice(0, 2), slice(2, 6)):  # in parts
            one.add(entering[rows], leaving[rows], labels[rows], ALONE)
    one.begin()
    assert one.ready
    entering, leaving = epochs[2]
    known = [means(values) for values in epochs[1]]
    told = means(shares(epochs[1][1], means(epochs[0][1])))  # Q by label
    inside, outside = shares(entering, known[0]), shares(leaving, known[1])
    wanted = (inside * np.log(inside)).sum(1) - (outside * np.log(told[LABELS])).sum(1)
    features = (torch.from_numpy(part).float() for part in epochs[2])
    got = one.term(next(features), next(features), labels)
    assert float(got) == pytest.approx(wanted.mean(), rel=1e-5)


def test_counts_from_the_third_epoch_on_and_learns() -> None:
    run = static_trainer(replace(STATIC, epochs=3, bottleneck=0.1))
    records = list(run.run())
    told = [record.terms[BOTTLENECK] for record in records]
    assert told[:4] == [0.0] * 4
    assert all(told[4:])
    for record in records:
        loss = 0.7 * record.cross_entropy + 0.3 * record.terms[DISTILLATION]
        assert record.loss == pytest.approx(loss + 0.1 * record.terms[BOTTLENECK], rel=1e-6)
    without = list(static_trainer(replace(STATIC, epochs=3)).run())
    same = [a.cross_entropy == b.cross_entropy for a, b in zip(records, without, strict=True)]
    assert same == [True] * 5 + [False]  # the first step with it moves what the second sees


def test_without_gradient_where_classes_are_missing() -> None:
    """A class without images takes no share and breaks no gradient."""
    one = Bottleneck(CLASSES, WIDTH, torch.device("cpu"))
    features = torch.randn((6, WIDTH), generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        one.begin()
        one.add(features, features, torch.from_numpy(LABELS), ALONE)
    one.begin()
    learning = features.clone().requires_grad_()
    torch.autograd.backward(one.term(learning, learning, torch.from_numpy(LABELS)))
    assert learning.grad is not None
    assert bool(learning.grad.isfinite().all())
    assert bool((learning.grad != 0).all())
