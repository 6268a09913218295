"""Dense weights by their timm name, from the Hugging Face Hub or its cache on this machine."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from ltmp_export.backbones import chosen
from ltmp_export.backbones.vit import features
from ltmp_export.checkpoint.outline import KINDS, Outline
from ltmp_export.errors import InputError
from ltmp_export.statements import timm_listed

PREFIX = "timm:"
WEIGHTS = "model.safetensors"


def names_a_model(source: str | Path) -> bool:
    """Whether this is `timm:NAME` and no file."""
    return str(source).startswith(PREFIX)


def absolute(source: Path) -> Path:
    """A path that holds in any folder; `timm:NAME` is none and stays."""
    return source if names_a_model(source) else source.resolve()


def file_of(source: Path) -> Path:
    """The file behind `timm:NAME`, see `fetch`; any other path as it is."""
    return fetch(source)[1] if names_a_model(source) else source


def name_in(source: str | Path) -> str:
    """The timm name in `timm:NAME`."""
    return str(source).removeprefix(PREFIX)


@functools.cache
def configured(source: Path) -> Outline:
    """What timm's configuration says of the model in `timm:NAME`; nothing is fetched.

    Raises:
        InputError: There is no such model, it has no weights on the Hub, or is no plain ViT; every
            feature that is not supported is named.
    """
    timm_listed.require_listed(name_in(source))
    from ltmp_export.statements import timm_names

    name = _configuration(source)[0]
    model = timm_names.create(name)
    weights = dict(model.state_dict())
    kind = chosen.by_class(model)
    describe = chosen.module(kind, "describe")
    if kind == chosen.VIT:
        features.require_plain(str(source), weights, more=describe.kinds(model))
    describe.describe(model, name)
    return Outline(
        path=source,
        arch=None,
        arch_in="",
        others=(),
        args={},
        weights=weights,
        thresholds={kind: {} for kind in KINDS},
        trained=None,
        found=("timm's configuration",),
        stored={},
        prefix="",
        beside={},
    )


def fetch(source: str | Path) -> tuple[str, Path]:
    """The timm name in `timm:NAME`, and the file of its pretrained weights.

    The cache is asked first; what is not there is downloaded, where the network allows. Only
    safetensors files are fetched.

    Raises:
        InputError: There is no such model, it is none that is supported, it has no such weights,
            or they cannot be fetched.
    """
    configured(Path(source))
    name, repository = _configuration(source)
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # every retry would be a line
    last: Exception | None = None
    for local in (True, False):
        try:
            found = huggingface_hub.hf_hub_download(repository, WEIGHTS, local_files_only=local)
        except (EntryNotFoundError, HfHubHTTPError, OSError, ValueError) as err:
            last = err
        else:
            return name, Path(found)
    raise InputError(
        f"{source}: {repository} is not in the cache of this machine and could not be "
        "downloaded (no network, or not found there); give a file with its weights"
    ) from last


def _configuration(source: str | Path) -> tuple[str, str]:
    """The timm name in `timm:NAME` and the repository of its weights.

    Raises:
        InputError: There is no such model, or it has no such weights.
    """
    from ltmp_export.statements import timm_names

    named = timm_names.require(str(source).removeprefix(PREFIX))
    name, config = named.name, named.config
    if config is None or not config.hf_hub_id:
        raise InputError(f"timm has no pretrained weights of {name!r} on the Hugging Face Hub")
    return name, str(config.hf_hub_id)
