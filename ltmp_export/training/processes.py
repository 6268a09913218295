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

_PATIENCE = timedelta(hours=2)  # the first process may measure the dense model meanwhile
_TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")


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

    def autocast(self, precision: str) -> torch.autocast:
        """Where products are taken in "float32", "bfloat16" or "float16"."""
        kind = getattr(torch, precision)
        return torch.autocast(self.device.type, kind, enabled=kind is not torch.float32)

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
        device: See `device_of`.

    Raises:
        InputError: There is no such device, or what torchrun sets is there in part.
        UnavailableError: There is no GPU.
    """
    rank, count, local_rank = _place()
    chosen = device_of(device, local_rank)
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


def _place() -> tuple[int, int, int]:
    """Rank, number of processes and rank on this machine, as torchrun tells them."""
    told = {name: os.environ.get(name) for name in _TOLD}
    if told["WORLD_SIZE"] in (None, "1"):
        return 0, 1, int(told["LOCAL_RANK"] or 0)
    missing = [name for name, value in told.items() if value is None]
    if missing:
        raise InputError(
            f"WORLD_SIZE is set, but not {', '.join(missing)}: start several processes with "
            "torchrun, or unset it"
        )
    return int(told["RANK"] or 0), int(told["WORLD_SIZE"] or 1), int(told["LOCAL_RANK"] or 0)


def device_of(asked: str, local_rank: int = 0) -> torch.device:
    """A device by its name.

    Args:
        asked: "auto" for the GPU if there is one, "cpu", "cuda" or "cuda:1".
        local_rank: Which GPU "cuda" is.

    Raises:
        InputError: There is no such device.
        UnavailableError: There is no GPU, or not so many.
    """
    available = torch.cuda.is_available()
    if asked == "auto":
        asked = "cuda" if available else "cpu"
    if asked != "cpu" and not asked.startswith("cuda"):
        raise InputError(f"no device {asked!r}; expected auto, cpu or cuda")
    if asked.startswith("cuda") and not available:
        raise UnavailableError(f"device {asked}: this PyTorch sees no GPU; give --device cpu")
    try:
        device = torch.device("cuda", local_rank) if asked == "cuda" else torch.device(asked)
    except RuntimeError as err:
        raise InputError(f"no device {asked!r}; expected auto, cpu, cuda or cuda:1") from err
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UnavailableError(
            f"no GPU number {device.index}: PyTorch sees {torch.cuda.device_count()} of them"
        )
    return device
