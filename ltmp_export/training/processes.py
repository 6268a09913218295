"""One process of several that train together (torchrun), and what they tell each other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ltmp_export.errors import InputError, UnavailableError

_PATIENCE = timedelta(hours=6)  # the first process measures the dense model while others wait


@dataclass(frozen=True)
class Process:
    """Where this process stands.

    Attributes:
        rank: Its number.
        count: How many there are.
        device: Where it computes.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether it is the one that reports and writes."""
        return self.rank == 0

    def share(self, model: nn.Module) -> Any:
        """The model as it is to be called: gradients become the mean over the processes."""
        if self.count == 1:
            return model
        on_gpu = self.device.type == "cuda"
        return nn.parallel.DistributedDataParallel(
            model, device_ids=[self.device.index] if on_gpu else None
        )

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a detached tensor over the processes."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
            values = values / self.count
        return values


@contextlib.contextmanager
def process(device: str) -> Iterator[Process]:
    """Join the other processes, where torchrun started any.

    Args:
        device: "auto" for the GPU if there is one, "cpu", "cuda" or "cuda:1".

    Raises:
        UnavailableError: There is no such device.
    """
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    chosen = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if count == 1:
        yield Process(0, 1, chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield Process(rank, count, chosen)
    finally:
        dist.destroy_process_group()


def _device(asked: str, local_rank: int) -> torch.device:
    available = torch.cuda.is_available()
    if asked == "auto":
        asked = "cuda" if available else "cpu"
    if asked != "cpu" and not asked.startswith("cuda"):
        raise InputError(f"no device {asked!r}; expected auto, cpu or cuda")
    if asked.startswith("cuda") and not available:
        raise UnavailableError(f"device {asked}: this PyTorch sees no GPU; give --device cpu")
    try:
        return torch.device("cuda", local_rank) if asked == "cuda" else torch.device(asked)
    except RuntimeError as err:
        raise InputError(f"no device {asked!r}; expected auto, cpu, cuda or cuda:1") from err
