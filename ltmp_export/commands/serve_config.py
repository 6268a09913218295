"""Exported model → a model of a Triton repository, and what deploys it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ltmp_export.errors import InputError
from ltmp_export.files import disk, folders
from ltmp_export.images import pictures
from ltmp_export.model_file import external
from ltmp_export.model_file.model import ExportedModel, read_exported
from ltmp_export.progress import Progress, silent
from ltmp_export.serving import kserve, preparation, triton
from ltmp_export.serving.signature import signature
from ltmp_export.serving.triton import Deployment

VERSION = "1"


@dataclass(frozen=True)
class ServeConfigReport:
    """What was written.

    Attributes:
        folder: The model in the repository.
        name: The model's.
        files: What it holds.
        max_batch_size: The most images in one run; 0 where the file has its batch fixed.
        manifest: KServe's, if one was written.
        notes: What was assumed at the export.
        warnings: What to look at.
    """

    folder: Path
    name: str
    files: tuple[str, ...]
    max_batch_size: int
    manifest: Path | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def serve_config(
    model: str | Path,
    repository: str | Path,
    deployment: Deployment | None = None,
    *,
    manifest: str | Path | None = None,
    storage_uri: str | None = None,
    progress: Progress = silent,
) -> ServeConfigReport:
    """Add an exported model to a Triton model repository.

    Args:
        model: File written by `export`.
        repository: The folder that a server is started with; it is made if it does not exist. A
            model of the same name must not be there.
        deployment: How the server is to run it; by default named like the file.
        manifest: Where to write a manifest of KServe.
        storage_uri: Where the cluster will find the repository.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: A file cannot be used or written.
    """
    path, place = Path(model), Path(repository)
    deployment = deployment or Deployment(path.stem)
    if (manifest is None) != (storage_uri is None):
        raise InputError("a manifest of KServe needs both, --kserve FILE and --storage-uri URI")
    said = None if storage_uri is None else kserve.manifest(deployment, storage_uri)
    progress("reading the model")
    exported = read_exported(path)
    given = signature(exported)
    text = triton.config(given, deployment)
    prepared = preparation.text(exported, given, pictures.mode(exported.geometry))
    folder = place / deployment.name
    _require_new(folder, path)
    if manifest is not None:
        disk.require_outputs([Path(manifest)], [path])
    progress("copying the model")
    names = list[str]()

    def parts() -> Iterator[tuple[str, bytes]]:
        for name, content in (
            (triton.CONFIG, text.encode()),
            (preparation.FILE, prepared.encode()),
            *_model(exported),
        ):
            names.append(name)
            yield name, content

    with disk.telling(place, folders.WAY_OUT):
        place.mkdir(parents=True, exist_ok=True)
    folders.write(folder, parts(), fresh=True)
    if manifest is not None and said is not None:
        disk.write_bytes(Path(manifest), said.encode())
    return ServeConfigReport(
        folder=folder,
        name=deployment.name,
        files=tuple(names),
        max_batch_size=triton.max_batch_size(given, deployment),
        manifest=None if manifest is None else Path(manifest),
        notes=exported.notes,
        warnings=(),
    )


def _require_new(folder: Path, model: Path) -> None:
    """Check that the repository has no such model yet.

    Raises:
        InputError: It has, or the file to be copied lies there.
    """
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise InputError(
            f"{folder} is there already; give the model another --name, or remove that one"
        )
    folders.require_folder(folder.parent if folder.parent.is_dir() else folder.parent.absolute())


def _model(exported: ExportedModel) -> Iterator[tuple[str, bytes]]:
    """The file as it is, and its weights where they lie beside it, which it names."""
    with disk.telling(exported.path):
        yield f"{VERSION}/{triton.MODEL}", exported.path.read_bytes()
        for data in external.files_beside(exported.path):
            yield f"{VERSION}/{data.name}", data.read_bytes()
