"""Classes by nearest neighbours: what features without a classifier are worth, where labels exist.

The protocol of DINO (arXiv 2104.14294): the k images of the highest cosine vote for their class,
each with exp(cosine / 0.07).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ltmp_export.errors import InputError

DEFAULT = 20
_TEMPERATURE = 0.07
_AT_ONCE = 1024  # queries, so that memory does not grow with them

Features = NDArray[np.float32]


def votes(
    queries: Features,
    references: Features | None,
    labels: NDArray[np.int64],
    k: int = DEFAULT,
    classes: int | None = None,
) -> NDArray[np.float64]:
    """What the neighbours of each image vote for.

    Args:
        queries: [n, C] features.
        references: [m, C] of the images that may vote; None where the queries are asked about each
            other, and no image votes on itself.
        labels: [m] classes of these.
        k: Neighbours that vote, or as many as there are.
        classes: How many there are; by default up to the highest of the labels.

    Returns:
        [n, classes], above 0 for each class that somebody votes for.
    """
    among, found = unit(queries if references is None else references), []
    width = int(labels.max()) + 1 if classes is None else classes
    most = min(k, len(among) - (references is None))
    for start in range(0, len(queries), _AT_ONCE):
        cosine = unit(queries[start : start + _AT_ONCE]) @ among.T
        rows = np.arange(len(cosine))
        if references is None:
            cosine[rows, start + rows] = -np.inf
        nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :most]
        weight = np.exp((np.take_along_axis(cosine, nearest, 1) - 1) / _TEMPERATURE)
        cast = np.zeros((len(cosine), width))
        np.add.at(cast, (rows[:, None], labels[nearest]), weight)
        found.append(cast)
    return np.concatenate(found)


def top1(features: Features, labels: NDArray[np.int64], k: int) -> float:
    """Share of images whose class their neighbours among the others vote for."""
    return float((votes(features, None, labels, k).argmax(1) == labels).mean())


def cosines(one: Features, other: Features) -> NDArray[np.float64]:
    """[n] of each two rows."""
    found: NDArray[np.float64] = (unit(one) * unit(other)).sum(1)
    return found


def unit(features: Features) -> NDArray[np.float64]:
    """Rows of length 1."""
    wide = features.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    found: NDArray[np.float64] = wide / np.where(length > 0, length, 1.0)
    return found


def require(k: int | None, classes: int, what: object) -> int:
    """How many neighbours are to vote.

    Args:
        k: As asked for; None for the default.
        classes: Of the model.
        what: The model, for messages.

    Raises:
        InputError: Fewer than one, or the model has a classifier, which tells classes itself.
    """
    if k is not None and classes:
        raise InputError(f"{what} has a classifier, which tells its classes; drop --knn")
    if k is not None and k < 1:
        raise InputError(f"{k} nearest neighbours; expected at least 1")
    return DEFAULT if k is None else k
