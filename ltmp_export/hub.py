"""Dense weights by their timm name, from the Hugging Face Hub or its cache on this machine."""

from __future__ import annotations

import logging
from pathlib import Path

from ltmp_export.errors import InputError

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


def fetch(source: str | Path) -> tuple[str, Path]:
    """The timm name in `timm:NAME`, and the file of its pretrained weights.

    The cache is asked first; what is not there is downloaded, where the network allows. Only
    safetensors files are fetched.

    Raises:
        InputError: There is no such model, it has no such weights, or they cannot be fetched.
    """
    from ltmp_export import timm_names

    named = timm_names.require(str(source).removeprefix(PREFIX))
    name, config = named.name, named.config
    if config is None or not config.hf_hub_id:
        raise InputError(f"timm has no pretrained weights of {name!r} on the Hugging Face Hub")
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # every retry would be a line
    last: Exception | None = None
    for local in (True, False):
        try:
            found = huggingface_hub.hf_hub_download(
                config.hf_hub_id, WEIGHTS, local_files_only=local
            )
        except (EntryNotFoundError, HfHubHTTPError, OSError, ValueError) as err:
            last = err
        else:
            return name, Path(found)
    raise InputError(
        f"{source}: {config.hf_hub_id} is not in the cache of this machine and could not be "
        "downloaded (no network, or not found there); give a file with its weights"
    ) from last
