"""Classes by nearest neighbours: what features without a classifier are worth, where labels exist.

The protocol of DINO (arXiv 2104.14294): the k images of the highest cosine vote for their class,
each with exp(cosine / 0.07).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ltmp_export.errors import InputError
from ltmp_export.images import numbering
from ltmp_export.images.labelled import Labelled

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


@dataclass(frozen=True)
class Vote:
    """Whose neighbours tell the classes of images.

    Attributes:
        k: Neighbours that vote.
        labels: [n] classes of the images.
        others: The images that vote; None where those asked about do, each on all but itself.
        known: [m] classes of those that vote, numbered as `labels`.
    """

    k: int
    labels: NDArray[np.int64]
    others: Labelled | None
    known: NDArray[np.int64]

    def right(
        self, features: Features, others: Features | None, tops: Sequence[int]
    ) -> list[float]:
        """Shares of the images whose class is among so many first ones, of those voted for.

        Args:
            features: [n, C] of the images.
            others: [m, C] of `others`, None where that is.
            tops: How many first ones.
        """
        classes = 1 + int(max(self.known.max(), self.labels.max()))
        cast = votes(features, others, self.known, self.k, classes)
        order = np.argsort(-cast, axis=1, kind="stable")
        hits = (order == self.labels[:, None]) & (np.take_along_axis(cast, order, 1) > 0)
        return [float(hits[:, :top].any(1).mean()) for top in tops]


def vote(images: Labelled, others: Labelled | None, k: int | None) -> Vote | None:
    """Who votes on images; None where nothing was asked for and nobody can.

    Args:
        images: What is measured.
        others: The images that vote; by default the same.
        k: How many of them; by default 20, or as many as there are.

    Raises:
        InputError: Neighbours were asked for, but there are no labels, no class that both sets
            have, or not so many neighbours.
    """
    if images.labels is None:
        given = {"--knn": k, "--knn-images": others}
        if flags := [flag for flag, value in given.items() if value is not None]:
            raise InputError(
                f"{images.origin} has no labels, by which neighbours could be right; give a folder "
                f"for each class, or an .npz with 'images' and 'labels', or drop "
                f"{' and '.join(flags)}"
            )
        return None
    there = len(images) - 1 if others is None else len(others)
    if k is None and not there:
        return None
    if k is not None and k > there:
        whose = (
            f"each of the {len(images)} images measured ({images.origin}) has {there} others"
            if others is None
            else f"{others.origin} has {there} images that vote"
        )
        advice = f"take --knn {there}, or more images" if there else "give more, or drop --knn"
        raise InputError(f"{k} nearest neighbours, but {whose}; {advice}")
    labels, known = (images.labels,) * 2 if others is None else _numbered_alike(images, others)
    return Vote(min(DEFAULT, there) if k is None else k, labels, others, known)


def _numbered_alike(one: Labelled, other: Labelled) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels of two sets, by the names of their folders, where each may number its own.

    Raises:
        InputError: They have no class in common.
    """
    names, others = one.class_names(), other.class_names()
    if not set(names) & set(others):
        raise InputError(
            f"{one.origin} has the classes {numbering.some(set(names))}, {other.origin} has "
            f"{numbering.some(set(others))}, and none is the same; give both as folders called "
            "alike, or both as .npz"
        )
    numbers = {name: number for number, name in enumerate(sorted({*names, *others}))}
    first, second = (np.array([numbers[name] for name in each]) for each in (names, others))
    return first, second


def require(k: int | None, classes: int, what: object, images: object = None) -> None:
    """Check that neighbours are asked for only where they are to vote.

    Args:
        k: How many, as asked for; None for the default.
        classes: Of the model.
        what: The model, for messages.
        images: Those that vote, where they are stated.

    Raises:
        InputError: Fewer than one, or the model has a classifier, which tells classes itself.
    """
    for flag, given in (("--knn", k), ("--knn-images", images)):
        if given is not None and classes:
            raise InputError(f"{what} has a classifier, which tells its classes; drop {flag}")
    if k is not None and k < 1:
        raise InputError(f"{k} nearest neighbours; expected at least 1")
