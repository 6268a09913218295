"""What both ways to calibrate begin with: a model, and images in two halves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ltmp_export.calibration import crew, neighbours
from ltmp_export.calibration.crew import Crew
from ltmp_export.calibration.targets import Spread
from ltmp_export.checkpoint.load import Checkpoint, load_checkpoint
from ltmp_export.distributed import cluster
from ltmp_export.distributed.cluster import Place
from ltmp_export.errors import InputError
from ltmp_export.families import Family
from ltmp_export.files import disk
from ltmp_export.images import sets
from ltmp_export.images.labelled import Labelled
from ltmp_export.progress import Progress
from ltmp_export.statements.choices import Choices
from ltmp_export.training import saving
from ltmp_export.training.processes import device_of


class Halves(NamedTuple):
    """A model and its images.

    Attributes:
        source: The model, where it is to be measured.
        name: What an output calls it.
        chosen: All images.
        scored: The half that gives scores.
        held_out: The half that is measured on.
        voters: Neighbours that vote for a class, of a model without classifier.
    """

    source: Checkpoint
    name: str
    chosen: Labelled
    scored: Labelled
    held_out: Labelled
    voters: int

    @property
    def knn(self) -> int | None:
        """Neighbours that vote, where there is no classifier."""
        return None if self.source.vit.classes else self.voters

    def subject(self, family: str) -> crew.Subject:
        """What runs, with the steps of a family."""
        return crew.Subject(self.source, family, self.scored, self.held_out)


def opened(
    checkpoint: str | Path,
    images: str | Path,
    output: str | Path | None,
    *,
    spread: Spread,
    name: str | None,
    class_map: str | Path | None,
    class_order: str | None,
    choices: Choices | None,
    knn: int | None,
    device: str,
    progress: Progress,
    suits: Callable[[Checkpoint], object] | None = None,
) -> Halves:
    """Read a model and find its images, see `commands.calibrate.calibrate`.

    What does not suit, `suits` refuses before images are looked for.

    Raises:
        InputError: One cannot be used.
        UnavailableError: There is no such device.
    """
    progress("reading the checkpoint")
    source = load_checkpoint(checkpoint, choices, dense=True)
    if suits is not None:
        suits(source)
    name = saving.named(source, name)
    neighbours.require(knn, source.vit.classes, source.path)
    if output is not None:
        disk.require_outputs([Path(output)], [source.path, Path(images)])
    progress("looking for images")
    kind = sets.Kind.of(source, class_map, class_order)
    chosen = sets.held_out(Path(images), kind, classes=knn is not None).select(spread.samples)
    scored, held_out = sets.halves(chosen, spread.seed)
    vote = None if source.vit.classes else neighbours.vote(held_out, None, knn)
    source.model.to(device_of(device))
    voters = neighbours.DEFAULT if vote is None else vote.k
    return Halves(source, name, chosen, scored, held_out, voters)


def require_splittable(family: Family, spread: Spread) -> None:
    """Check that a split of removals has two kinds to be between.

    Raises:
        InputError: It has one.
    """
    if spread.merge is not None and len(family.scalars) == 1:
        raise InputError(f"family {family.name} has one kind of step; drop --split")


@contextlib.contextmanager
def running(subject: crew.Subject, place: Place, progress: Progress) -> Iterator[Crew]:
    """Where the images run, see `commands.calibrate.calibrate`.

    Raises:
        InputError: There is no such cluster.
    """
    if not place.is_cluster:
        yield Crew(subject, place.workers)
        return
    with (
        cluster.connected(place, progress) as there,
        crew.elsewhere(subject, there, progress) as found,
    ):
        yield found


def device_for(place: Place, asked: str) -> str:
    """Where PyTorch runs.

    Raises:
        InputError: A GPU is asked for, and processes of a cluster.
    """
    if not place.is_cluster:
        return asked
    if asked not in ("auto", "cpu"):
        raise InputError(f"processes of a cluster run on CPUs; drop --device {asked}")
    return "cpu"
