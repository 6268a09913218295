"""What the linear layers of a model are given on images, here or in processes of a cluster.

Of each image the ranges of each layer and some rows come back, and are put together in the order of
the images: the least of all, the largest of all, all rows. So nothing depends on who computed what.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.distributed import cluster, stream
from ltmp_export.distributed.cluster import HERE, Place
from ltmp_export.errors import InputError
from ltmp_export.files import memory
from ltmp_export.images.inputs import Images
from ltmp_export.plan.linears import rounded
from ltmp_export.plan.plan import Plan
from ltmp_export.progress import Progress
from ltmp_export.reference import Reference

ROWS = 512  # inputs of each layer that are kept, of all images
_AT_ONCE = 4  # images that a process of a cluster gets


@dataclass(frozen=True)
class Given:
    """What a linear layer is given.

    Attributes:
        rows: [n, in] some of it.
        low: [in] the least of all.
        high: [in] the largest.
    """

    rows: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]


def joined(found: Sequence[Given]) -> Given:
    """What one layer is given on several images, in their order."""
    return Given(
        np.concatenate([one.rows for one in found]),
        np.minimum.reduce([one.low for one in found]),
        np.maximum.reduce([one.high for one in found]),
    )


Layers = dict[str, Given]  # by the path of the weights, in the order of the computation


class _Watched(NamedTuple):
    """A model, and of which layers how many rows of an image are kept."""

    model: nn.Module
    plan: Plan
    paths: tuple[str, ...]
    rows: int

    def ready(self) -> Callable[[NDArray[np.float32]], Layers]:
        """What tells of an image [channels, H, W] what its layers are given."""
        seen: dict[str, list[Given]] = {}
        for path in self.paths:
            self.model.get_submodule(path).register_forward_pre_hook(self._hook(path, seen))
        reference = Reference(self.model, self.plan)

        def run(pixels: NDArray[np.float32]) -> Layers:
            seen.clear()
            reference.run(torch.from_numpy(pixels))
            return {path: joined(found) for path, found in seen.items()}

        return run

    def _hook(
        self, path: str, seen: dict[str, list[Given]]
    ) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            of_map = isinstance(module, nn.Conv2d)  # channels stand in front
            cells = inputs[0].movedim(1, -1) if of_map else inputs[0]
            x = cells.reshape(-1, cells.shape[-1]).numpy()
            chosen = np.unique(np.linspace(0, len(x) - 1, self.rows).astype(int))
            seen.setdefault(path, []).append(Given(x[chosen], x.min(axis=0), x.max(axis=0)))

        return hook


def observe(
    checkpoint: Checkpoint, images: Images, progress: Progress, place: Place = HERE
) -> Layers:
    """What each linear layer is given.

    Raises:
        InputError: Some of it is not finite, or there is no such cluster.
    """
    model = copy.deepcopy(checkpoint.model)
    linears = {layer.path for layer in rounded(checkpoint.geometry)}
    kinds = (nn.Linear, nn.Conv2d)
    paths = [path for path, one in model.named_modules() if isinstance(one, kinds)]
    chosen = tuple(path for path in paths if path in linears)
    watched = _Watched(model, checkpoint.plan, chosen, -(-ROWS // len(images)))
    seen: dict[str, list[Given]] = {}
    for number, layers in enumerate(_of_each(watched, images, place, progress)):
        progress(f"calibrating on image {number + 1} of {len(images)}")
        for path, one in layers.items():
            seen.setdefault(path, []).append(one)
    given = {path: joined(found) for path, found in seen.items()}
    broken = [path for path, one in given.items() if not np.isfinite([one.low, one.high]).all()]
    if broken:
        raise InputError(
            f"the images to calibrate on ({images.origin}) lead to NaN or infinite numbers before "
            f"{broken[0]}; give others"
        )
    return given


def _of_each(
    watched: _Watched, images: Images, place: Place, progress: Progress
) -> Iterator[Layers]:
    """Image by image, in their order."""
    if not place.is_cluster:
        yield from map(watched.ready(), images.pixels)
        return
    with cluster.connected(place, progress) as workers:
        make = partial(_opened, watched, memory.current_memory_limit())
        at_once = max(1, min(_AT_ONCE, len(images) // workers))
        starts = range(0, len(images), at_once)
        tasks = [images.pixels[start : start + at_once] for start in starts]
        for found in stream.results(make, tasks, workers, progress=progress):
            yield from found


def _opened(watched: _Watched, limit: float) -> Callable[[NDArray[np.float32]], list[Layers]]:
    """What does a task in a process of its own, with one thread: some images."""
    torch.set_num_threads(1)
    run = watched.ready()

    def do(pixels: NDArray[np.float32]) -> list[Layers]:
        with memory.memory_limit(limit):
            return [run(image) for image in pixels]

    return do
