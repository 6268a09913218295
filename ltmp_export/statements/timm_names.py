"""Names of models: as timm has them now, as it had them before, as others write them.

    vit_base_patch16_224.dino        timm's own, with a pretrained tag or without
    vit_base_patch16_224_dino        a name that timm has given up for the one above
    hf-hub:timm/NAME, hf_hub:…       a repository of timm's on the Hugging Face Hub
    hf-hub:OWNER/REPOSITORY          anyone's: its config.json tells, where the cache has it
    vit_huge_patch14                 what the training scripts of MAE and DeiT III call theirs

What timm is asked here never reaches the user as a warning of timm's.
"""

from __future__ import annotations

import contextlib
import functools
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch.overrides import TorchFunctionMode

from ltmp_export.errors import InputError
from ltmp_export.files.near_misses import did_you_mean
from ltmp_export.statements.timm_listed import HUB, LIKE, SCRIPTS

BUILD_ERRORS = (
    TypeError,
    ValueError,
    RuntimeError,
    AssertionError,
    AttributeError,
    LookupError,
    ArithmeticError,
)
# What initialisers are made of: they change numbers, never a shape or a kind.
_FILLING = frozenset(
    ("add_", "clamp_", "copy_", "div_", "erfinv_", "fill_", "mul_", "normal_", "uniform_", "zero_")
)
_MOST_CONFIG = 2**20  # bytes of a config.json


@dataclass(frozen=True)
class TimmName:
    """A model of timm's.

    Attributes:
        name: As timm has it now, with the pretrained tag where one is known.
        said: As it was written, where that is something else; else "".
        tagged: Whether timm has the pretrained tag that was written, if any was. If not, the
            architecture is known all the same, but not how its weights want images prepared.
        hub: What a config.json on the Hub says besides, see `checkpoint.description.from_config`.
    """

    name: str
    said: str = ""
    tagged: bool = True
    hub: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> Any:
        """Timm's pretrained configuration, or None."""
        return _config(self.name) if self.tagged else None

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) of the images that timm knows for it."""
        found = self.config
        return None if found is None else (found.input_size[1], found.input_size[2])

    def crop_pct(self, side: int) -> float | None:
        """The share that a training script's own evaluation crops, where its name is known.

        MAE's resizes to 256 for 224 pixels, and does not crop larger images.
        """
        if self.said not in SCRIPTS or not self.name.endswith(".mae"):
            return None
        return 0.875 if side <= 224 else 1.0

    @property
    def note(self) -> str:
        """How the two names belong together, or nothing."""
        return f"{self.said}: {self.name} of timm" if self.said else ""


def resolve(written: str) -> TimmName | None:
    """The model of timm's that a name stands for; None where it stands for none."""
    prefix = next((p for p in HUB if written.startswith(p)), None)
    if prefix is not None:
        return _on_the_hub(written, written.removeprefix(prefix).partition("@")[0])
    name = SCRIPTS.get(written, written)
    arch, _, tag = name.partition(".")
    if not timm.is_model(arch):
        return None
    if arch not in _current():
        new = _renamed(arch)
        if new is None:
            return None
        name = f"{new.partition('.')[0]}.{tag}" if tag else new
    tagged = "." not in name or _config(name) is not None
    name = name if tagged else name.partition(".")[0]
    return TimmName(name, "" if name == written else written, tagged)


def require(written: str) -> TimmName:
    """The same of a name that the user states.

    Raises:
        InputError: timm has no such model, or not of that tag.
    """
    found = resolve(written)
    if found is None and written.startswith(HUB):
        raise InputError(
            f"{written}: its config.json is not in the cache of this machine, or names no model of "
            "timm's; state timm's own name with --model"
        )
    if found is None:
        raise InputError(f"timm has no model {written!r}{did_you_mean_model(written)}")
    if not found.tagged:
        tags = timm.list_models(found.name, include_tags=True)
        raise InputError(
            f"timm has no model {written!r}; of {found.name} it has {', '.join(tags[:4])}"
            f"{', …' if len(tags) > 4 else ''}"
        )
    return found


def did_you_mean_model(name: str) -> str:
    """'; did you mean …?' for the timm name of a network that is taken, or nothing."""
    return did_you_mean(name, timm.list_models([*LIKE]), cutoff=0.4)


class _Unfilled(TorchFunctionMode):
    """Leaves out what fills tensors that hold no numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _FILLING:
            filled = args[0] if args else kwargs.get("tensor")
            if isinstance(filled, torch.Tensor) and filled.is_meta:
                return filled
        return func(*args, **kwargs)


@contextlib.contextmanager
def without_numbers() -> Iterator[None]:
    """What is built here has shapes and no numbers, which would take most of the time."""
    with torch.device("meta"), _Unfilled():
        yield


def create(name: str, **kwargs: Any) -> torch.nn.Module:
    """Timm's model of a name, without numbers in its weights.

    Raises:
        InputError: timm cannot build it.
    """
    try:
        with without_numbers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: torch.nn.Module = timm.create_model(name, pretrained=False, **kwargs)
    except BUILD_ERRORS as err:
        raise InputError(f"timm cannot build {name}: {err}") from err
    return model


@functools.cache
def _current() -> frozenset[str]:
    """All architectures of timm's, without names that it has given up."""
    return frozenset(timm.list_models())


@functools.cache
def _renamed(arch: str) -> str | None:
    """What timm calls a model now whose name it has given up; None where it has none any more.

    timm itself says so in the configuration of the model that it builds for the old name.
    """
    try:
        built: Any = create(arch)
    except InputError:
        return None
    found = built.pretrained_cfg
    name, tag = found.get("architecture"), found.get("tag")
    return f"{name}.{tag}" if tag else str(name)


def _config(name: str) -> Any:
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:  # no such pretrained tag
        return None


def _on_the_hub(written: str, repository: str) -> TimmName | None:
    values = _cached_config(repository)
    owner, _, name = repository.partition("/")
    if not values and owner == "timm" and len(_sharing(repository)) < 2:
        found = resolve(name)
        return None if found is None else replace(found, said=written)
    found = resolve(str(values.get("architecture")))
    return None if found is None else replace(found, said=written, hub=values)


def _sharing(repository: str) -> list[str]:
    """The models of timm's whose weights are in one repository: with two activations, of CLIP's."""
    named = repository.partition("/")[2].partition(".")[2]
    tagged = timm.list_models(f"*.{named}", include_tags=True) if named else []
    return [name for name in tagged if getattr(_config(name), "hf_hub_id", None) == repository]


def _cached_config(repository: str) -> Mapping[str, Any]:
    """A repository's config.json, if this machine has it; nothing is downloaded."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        path = huggingface_hub.hf_hub_download(repository, "config.json", local_files_only=True)
        text = Path(path).read_bytes()[: _MOST_CONFIG + 1]
        values = json.loads(text)
    except (OSError, ValueError, RecursionError, HfHubHTTPError):
        return {}
    described = isinstance(values, dict) and isinstance(values.get("architecture"), str)
    whole = described and isinstance(values.get("pretrained_cfg", {}), dict)
    return values if whole and len(text) <= _MOST_CONFIG else {}
