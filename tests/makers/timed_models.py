"""The models of the speed tables: made up once, then written by this build and by another one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.graph import interface
from ltmp_export.images import inputs
from ltmp_export.images.inputs import Images
from ltmp_export.plan.work import executed_share
from ltmp_export.precision.formats import FP32, INT8
from ltmp_export.runtimes.recording import TappedSession
from ltmp_export.timing import made_up
from tests.makers import timed_files
from tests.makers.timed_files import Order

IMAGES = 16  # at least; as many as a batch where that is larger
DYNAMIC, SINGLE = "any batch", "`--batch-size 1`"
FORMS: Mapping[str, int | None] = {DYNAMIC: None, SINGLE: 1}
BOTH = (DYNAMIC, SINGLE)


class Way(NamedTuple):
    """A reduced model, and where it is timed.

    Attributes:
        called: Behind the name of its subject.
        family: The family.
        share: Of the dense multiply-accumulates, that made-up thresholds are to leave.
        rate: Or so many tokens a block.
        precision: In which numbers.
        forms: Of the file; one for single images is timed at batch 1 alone.
        sizes: Batch sizes.
        auto: As of `Order`.
    """

    called: str
    family: str
    share: float | None = None
    rate: int = 0
    precision: str = FP32
    forms: tuple[str, ...] = (DYNAMIC,)
    sizes: tuple[int, ...] = (1,)
    auto: bool = False


@dataclass(frozen=True)
class Subject:
    """A model, and how it is reduced.

    Attributes:
        called: As the tables call it.
        name: timm's; "" for the embedded checkpoint of the digits.
        ways: How it is reduced.
        one_thread: Whether it is timed in one thread, too.
        kwargs: For timm's model.
    """

    called: str
    name: str
    ways: tuple[Way, ...]
    one_thread: bool = False
    kwargs: Mapping[str, Any] = field(default_factory=dict)


SUBJECTS = (
    Subject("digits", "", (Way("", "ltmp", forms=BOTH),), one_thread=True),
    Subject(
        "DeiT-tiny",
        "deit_tiny_patch16_224",
        (Way("", "ltmp", 0.53, forms=BOTH), Way("", "ltmp", 0.50, sizes=(16,))),
    ),
    Subject(
        "DeiT-S",
        "deit_small_patch16_224",
        (
            Way("", "ltmp", 0.52, forms=BOTH, sizes=(1, 16, 32)),
            Way("", "ltmp", 0.28),
            Way("`--family m --r 13`", "m", rate=13, sizes=(1, 16)),
            Way("", "ltmp", 0.50, precision=INT8, sizes=(1, 16)),
            Way(
                "`--protect auto`",
                "ltmp",
                0.50,
                precision=INT8,
                forms=BOTH,
                sizes=(1, 16),
                auto=True,
            ),
        ),
    ),
    Subject("ViT-B", "vit_base_patch16_224", (Way("", "ltmp", 0.6),)),
)


class Key(NamedTuple):
    """A file: of which way (by its number; -1 for the dense model), in which numbers and form."""

    way: int
    precision: str
    form: str

    @property
    def label(self) -> str:
        way = "dense" if self.way < 0 else str(self.way)
        return f"{way} {self.precision} {'single' if FORMS[self.form] else 'dynamic'}"

    @property
    def dense(self) -> Key:
        return self._replace(way=-1)

    @property
    def dense_fp32(self) -> Key:
        return self.dense._replace(precision=FP32)


def keys(subject: Subject) -> dict[Key, set[int]]:
    """The files of a subject, the dense ones that they are compared with first, and their sizes."""
    reduced = {
        Key(number, way.precision, form): {1} if form == SINGLE else set(way.sizes)
        for number, way in enumerate(subject.ways)
        for form in way.forms
    }
    found: dict[Key, set[int]] = {}
    for key, sizes in reduced.items():
        for dense in (key.dense_fp32, key.dense):
            found[dense] = found.get(dense, set()) | sizes
    return found | reduced


def images(subject: Subject) -> Images:
    """As many as the largest batch has."""
    count = max(IMAGES, *(size for way in subject.ways for size in way.sizes))
    if subject.name:
        return inputs.synthetic(_made_up(subject).geometry, count)
    return inputs.embedded_digits().select(count)


def chosen(count: int, size: int) -> NDArray[np.int64]:
    """Indices of the images at a batch size, spread over all: the later, the busier they are."""
    index: NDArray[np.int64] = np.linspace(0, count - 1, max(IMAGES, size)).round().astype(int)
    return index


def _made_up(subject: Subject) -> Checkpoint:
    return made_up.checkpoint(subject.name, **subject.kwargs)


def orders(subject: Subject, seen: Images, folder: Path) -> dict[Key, Order]:
    """Make the checkpoints up in a folder; how each file is written from them."""
    places = [_checkpoint(subject, number, seen, folder) for number in range(len(subject.ways))]
    return {
        key: Order(
            str(places[key.way]),
            _choices(subject.ways[key.way]),
            key.way < 0,
            key.precision,
            FORMS[key.form],
            str(folder / f"{key.label}.onnx".replace(" ", "_")),
            subject.ways[key.way].auto,
        )
        for key in keys(subject)
    }


def _choices(way: Way) -> dict[str, Any]:
    return {"family": way.family, "rate": str(way.rate)} if way.rate else {}


def _checkpoint(subject: Subject, number: int, seen: Images, folder: Path) -> Path:
    """A file with the model's weights, and with thresholds where a way has a share."""
    way = subject.ways[number]
    if not subject.name:
        return inputs.fixture(inputs.DIGITS)
    source, arch = _made_up(subject), subject.name
    if way.share is not None:
        scored = seen.select(max(IMAGES, *way.sizes))
        source = made_up.at_share(source, way.family, way.share, scored)
        arch = f"{way.family}_{arch}"
    state = dict(source.model.state_dict())
    for kind, values in source.plan.thresholds().items():
        for block, value in enumerate(values):
            state[f"blocks.{block}.{kind}_masker.threshold"] = torch.tensor([value])
    path = folder / f"{number}.pth.tar"
    torch.save({"arch": arch, "state_dict": state}, path)
    return path


def write(order: Order, seen: Images) -> list[float]:
    """Write a file with this build; of each image the share of the work that is left."""
    source, model = timed_files.write(order)
    if order.dense:
        return [1.0] * len(seen)
    taps = interface.count_taps(source.geometry.depth)
    tapped = TappedSession(model, taps)
    found = [tapped.run(pixels[None]) for pixels in seen.pixels]
    counts = [[int(one[name].reshape(-1)[0]) for name in taps] for one in found]
    return [executed_share(source.geometry, source.plan, [one]) for one in counts]


def write_with(tree: Path, asked: Sequence[Order]) -> None:
    """Write files with the build of another checkout.

    Raises:
        subprocess.CalledProcessError: It could not; stderr has its words.
    """
    text = Path(timed_files.__file__).read_text()  # its folder comes first where it is looked for
    subprocess.run(
        [sys.executable, "-c", text], input=json.dumps(asked), text=True, cwd=tree, check=True
    )


def elsewhere(order: Order) -> Order:
    """The same file of another build."""
    path = Path(order.output)
    return order._replace(output=str(path.with_name(f"before_{path.name}")))
