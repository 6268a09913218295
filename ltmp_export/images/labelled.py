"""Sets of labelled images, read in batches when they are needed; `images.sets` says where from."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ltmp_export.errors import InputError
from ltmp_export.files import memory
from ltmp_export.images import pictures

_AT_ONCE = 64  # images that are read in one go


class Reader(Protocol):
    """Gives the input of an image [channels, H, W] by its number."""

    def __getitem__(self, number: int) -> Tensor: ...


@dataclass(frozen=True)
class Arrays:
    """Inputs in memory [n, channels, H, W]."""

    pixels: NDArray[np.float32]

    def __getitem__(self, number: int) -> Tensor:
        return torch.from_numpy(self.pixels[number])


@dataclass(frozen=True)
class Pictures:
    """Picture files, opened and transformed one at a time."""

    paths: Sequence[Path]
    mode: str
    transform: Callable[[Any], Tensor]

    def __getitem__(self, number: int) -> Tensor:
        return pictures.read(self.paths[number], self.mode, self.transform)


@dataclass(frozen=True)
class Labelled:
    """A set of images with their classes.

    Attributes:
        reader: Gives the inputs; its numbers are those in `index`.
        index: [n] which of the reader's images belong to the set.
        labels: [n] int64 class indices, where they are known.
        names: One for each image.
        origin: Where they come from, for a person.
        sha256: Digest of the `.npz`; None for a folder.
        remarks: What a person should know of where they come from.
        numbers: The class of each folder, where folders are the classes.
        files: [n] which file each of the reader's images stands in, where they are many to a file.
    """

    reader: Reader = field(repr=False)
    index: NDArray[np.int64] = field(repr=False)
    labels: NDArray[np.int64] | None = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    origin: str
    sha256: str | None = None
    remarks: tuple[str, ...] = ()
    numbers: Mapping[str, int] | None = field(default=None, repr=False)
    files: NDArray[np.int64] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Tensor:
        return self.reader[int(self.index[number])]

    def take(self, chosen: NDArray[np.int64]) -> Labelled:
        """Those of these numbers."""
        return replace(
            self,
            index=self.index[chosen],
            labels=None if self.labels is None else self.labels[chosen],
            names=tuple(self.names[number] for number in chosen),
        )

    def select(self, count: int | None) -> Labelled:
        """At most `count` images, evenly spread; all for None.

        Raises:
            InputError: The count is below 1.
        """
        if count is not None and count < 1:
            raise InputError(f"{count} samples asked for; expected at least 1")
        if count is None or count >= len(self):
            return self
        return self.take(np.linspace(0, len(self) - 1, count).round().astype(np.int64))

    def in_memory(self, workers: int = 0) -> Labelled:
        """The same, read now, if the memory limit lets all of them be held; else as it is.

        Raises:
            InputError: One cannot be read.
        """
        if not len(self) or len(self) * self[0].nbytes > memory.current_memory_limit() * memory.GIB:
            return self
        pixels = np.concatenate([batch.numpy() for batch in self.batches(_AT_ONCE, workers)])
        return replace(self, reader=Arrays(pixels), index=np.arange(len(self)), files=None)

    def require_labels(self) -> NDArray[np.int64]:
        """The labels.

        Raises:
            InputError: There are none.
        """
        if self.labels is None:
            raise InputError(
                f"{self.origin} has no labels; expected a folder for each class, an .npz with "
                "'images' and 'labels', or shards or parquet with labels"
            )
        return self.labels

    def class_names(self) -> list[str]:
        """The class of each image in words: its folder, or the number where there are none.

        Raises:
            InputError: There are no labels.
        """
        names = {number: name for name, number in (self.numbers or {}).items()}
        return [names.get(label, str(label)) for label in self.require_labels().tolist()]

    def batches(self, size: int, workers: int = 0) -> Iterator[Tensor]:
        """All images in order, in batches [at most size, channels, H, W]."""
        keys = [range(at, min(at + size, len(self))) for at in range(0, len(self), size)]
        yield from load(self, keys, workers)


def load(source: Any, keys: Sequence[Sequence[Any]], workers: int) -> Iterator[Tensor]:
    """Batches of what `source[key]` gives, in order.

    Args:
        source: Anything with keys.
        keys: Those of each batch.
        workers: Processes that read, beside this one; 0 to read in this one.

    Raises:
        InputError: Fewer than none.
    """
    if workers < 0:
        raise InputError(f"{workers} workers; expected 0 or more")
    stream: DataLoader[Tensor | InputError] = DataLoader(
        _Keyed(source),
        batch_sampler=keys,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_together,
        worker_init_fn=_leave_interrupts,
        generator=torch.Generator(),  # its draws must not move the global one
    )
    for batch in stream:
        if isinstance(batch, InputError):
            raise batch
        yield batch


def _together(items: Sequence[Tensor | InputError]) -> Tensor | InputError:
    """A batch, or the first thing that is wrong with it: raised in the process that reports it."""
    tensors = [item for item in items if isinstance(item, Tensor)]
    wrong = [item for item in items if isinstance(item, InputError)]
    return wrong[0] if wrong else torch.stack(tensors)


def _leave_interrupts(worker: int) -> None:
    """Ctrl-C goes to all processes; the first one reports it, and the readers end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Keyed(Dataset[Tensor | InputError]):
    """Anything with keys as torch's loader takes it."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __getitem__(self, key: Any) -> Tensor | InputError:
        try:
            item: Tensor = self.source[key]
        except InputError as err:
            return err
        return item

    def __getitems__(self, keys: Sequence[Any]) -> list[Tensor | InputError]:
        """Of a batch, up to the first that is wrong: a silent server is not waited for again."""
        items: list[Tensor | InputError] = []
        for key in keys:
            items.append(self[key])
            if isinstance(items[-1], InputError):
                break
        return items
