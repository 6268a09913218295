"""The digits fixtures: the authors' fine-tuned checkpoints and what their own models gave."""

from __future__ import annotations

import argparse
import functools
import gc
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer.main
import typer.testing
from numpy.typing import NDArray
from torch import Tensor

import ltmp_export
from ltmp_export.checkpoint.load import Checkpoint
from tests.makers.shallow import shallow

FIXTURES = Path(__file__).parent / "fixtures"
DIGITS_LTMP = Path(ltmp_export.__path__[0]) / "fixtures" / "digits_ltmp.pth.tar"


def pytest_configure() -> None:
    """Build the command once, and tie each worker, and what it starts, to a processor of its own.

    Else every session and every process of either worker starts a thread for each processor, and
    they wait for one another. What is imported by then is never garbage, and is a great deal to
    look through each time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    # Building it takes longer than most commands.
    vars(typer.testing)["_get_command"] = functools.cache(typer.main.get_command)
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None and hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        mine = processors[int(worker.removeprefix("gw")) % len(processors)]
        os.sched_setaffinity(0, {mine})


def load_torch(path: Path) -> dict[str, Any]:
    """A PyTorch file as PyTorch reads it."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests first, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tensors here are tiny: on a busy machine torch's threads cost ten times what they gain."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dense digits ViT as a bare state_dict: the weights without the thresholds."""
    weights = load_torch(DIGITS_LTMP)["state_dict"]
    path = tmp_path_factory.mktemp("digits") / "digits_base.pth"
    torch.save({k: v for k, v in weights.items() if not k.endswith("_masker.threshold")}, path)
    return path


@pytest.fixture(scope="session")
def digits(digits_base: Path) -> Callable[[str], Checkpoint]:
    """The digits checkpoint of a family, loaded once."""
    from tests.makers import examples  # which imports this module

    loaded: dict[str, Checkpoint] = {}

    def load(family: str) -> Checkpoint:
        if family not in loaded:
            loaded[family] = examples.digits(family, digits_base)
        return loaded[family]

    return load


@pytest.fixture(scope="session")
def shallow_digits(digits: Callable[[str], Checkpoint]) -> Callable[[str], Checkpoint]:
    """The first three blocks of the same."""
    return functools.cache(lambda family: shallow(digits(family)))


def cluster_layers(width: int, *tokens: int) -> dict[str, Tensor]:
    """Layers of PatchMerger in their DeiT dialect, made up: so many tokens from each."""
    generator = torch.Generator().manual_seed(0)
    made = {}
    for index, number in enumerate(tokens):
        name, shape = f"cluster_layers.{index}", (number, width)
        made[f"{name}.queries"] = torch.randn(shape, generator=generator) * width**-0.5
        made[f"{name}.norm.weight"] = 1 + torch.randn(width, generator=generator) / 10
        made[f"{name}.norm.bias"] = torch.randn(width, generator=generator) / 10
    return made


@pytest.fixture(scope="session")
def golden() -> Mapping[str, NDArray[Any]]:
    """The arrays of golden.npz, see fixtures/README.md."""
    with np.load(FIXTURES / "golden.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def digit_images(golden: Mapping[str, NDArray[Any]]) -> Tensor:
    """[48, 3, 32, 32] held-out digits, normalised; every row is a different image."""
    return torch.from_numpy(golden["images"]).expand(-1, 3, -1, -1).contiguous()


@pytest.fixture
def content() -> dict[str, Any]:
    """The digits checkpoint, free to be changed: state_dict is a fresh dictionary."""
    top = load_torch(DIGITS_LTMP)
    return top | {"state_dict": dict(top["state_dict"]), "args": vars(top["args"]).copy()}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Mapping[str, Any]], Path]:
    """Save a changed checkpoint, `args` as the Namespace timm writes."""

    def save(content: Mapping[str, Any]) -> Path:
        content = dict(content)
        if "args" in content:
            content["args"] = argparse.Namespace(**content["args"])
        torch.save(content, tmp_path / "changed.pth.tar")
        return tmp_path / "changed.pth.tar"

    return save


def state_of(model: torch.nn.Module, depth: int) -> dict[str, Any]:
    """A model's weights with a prune threshold for each block, as a checkpoint's content."""
    thresholds = {f"blocks.{i}.prune_masker.threshold": torch.tensor([0.01]) for i in range(depth)}
    return {"state_dict": model.state_dict() | thresholds}
