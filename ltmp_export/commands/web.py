"""ONNX file and images → what onnxruntime gives for them → a site that gives it again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ltmp_export.errors import InputError
from ltmp_export.files import folders
from ltmp_export.images import inputs, pictures
from ltmp_export.model_file.dense import dense_baseline
from ltmp_export.model_file.model import read_exported
from ltmp_export.plan.plan import DENSE
from ltmp_export.progress import Progress, silent
from ltmp_export.site import onnxruntime_web as packages
from ltmp_export.site import probe
from ltmp_export.site.contents import Site
from ltmp_export.site.recorded import record
from ltmp_export.site.served import require_size, served

if TYPE_CHECKING:
    from ltmp_export.model_file.model import ExportedModel
    from ltmp_export.site.onnxruntime_web import Runtime

SAMPLES = 20


@dataclass(frozen=True)
class WebReport:
    """What was written.

    Attributes:
        output: The folder.
        files: Names and sizes in bytes, in the order in which they were made.
        runtime: What the models run in.
        images: Recorded ones: where they come from, and how many.
        allowed: How far a visitor's numbers may be from the recorded ones.
        notes: What was assumed.
        warnings: What else to know.
    """

    output: Path
    files: dict[str, int]
    runtime: Runtime
    images: str
    allowed: float
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def web(
    model: str | Path,
    output: str | Path = "site",
    *,
    images: str | Path | None = None,
    samples: int | None = None,
    onnxruntime_web: str | Path | None = None,
    dense: bool = True,
    threads: int | None = None,
    progress: Progress = silent,
) -> WebReport:
    """Make a static site that runs an exported file in the visitor's browser.

    Args:
        model: File written by `export`.
        output: Folder for the site; it is made if it does not exist, and files of the same names
            are replaced.
        images: Recorded, and offered on the page: a folder of pictures or an `.npz`, see
            `images.inputs.load_images`. The site holds them as model inputs, not as files.
        samples: At most so many, evenly spread; 20 by default.
        onnxruntime_web: Folder of that npm package, which is copied; without it the page loads a
            pinned version from a CDN.
        dense: Also serve the dense model of the same weights, to be timed beside it.
        threads: Threads of an operator while images are recorded; all processors by default.
        progress: Called with a few words as each stage begins.

    Raises:
        InputError: A file cannot be used, or a page cannot run it.
        CheckFailedError: A file's decisions are none, or not what its token_map says.
        ExportError: onnxruntime does not run it.
    """
    folder = Path(output)
    folders.require_folder(folder)
    _require_elsewhere(folder, model, images, onnxruntime_web)
    runtime = _runtime(onnxruntime_web)
    progress("opening the model")
    exported = read_exported(Path(model))
    source = None if images is None else Path(images)
    given = served(exported)
    other = None
    if dense and exported.plan.family != DENSE:
        progress("writing the dense model of the same weights")
        other = dense_baseline(exported)
        require_size(other, "the dense model (leave it out with --no-dense)")
    count = SAMPLES if samples is None else samples
    chosen = inputs.load_images(source, exported.geometry, exported.preprocessing, count)
    recorded = record(exported, given, chosen, threads, progress)
    progress("preparing the test picture")
    remarks = tuple(dict.fromkeys((*chosen.remarks, *given.remarks)))
    notes = (*(f"assumed: {note}" for note in exported.notes), *remarks)
    site = Site(exported, given, other, recorded, _probe(exported), runtime, notes)
    sizes: dict[str, int] = {}
    progress("writing the site")
    folders.write(folder, _noted(site, sizes))
    return WebReport(
        folder, sizes, runtime, chosen.described, recorded.allowed, exported.notes, remarks
    )


def _noted(site: Site, sizes: dict[str, int]) -> Iterator[tuple[str, bytes]]:
    """The files of a site, whose sizes are noted as they pass."""
    for name, content in site.files():
        sizes[name] = len(content)
        yield name, content


def _runtime(folder: str | Path | None) -> Runtime:
    if folder is None:
        return packages.on_cdn()
    return packages.in_folder(Path(folder))


def _probe(exported: ExportedModel) -> tuple[bytes, NDArray[np.float32]]:
    """The test picture, and what timm's transform makes of it."""
    shown = probe.picture()
    transform = pictures.evaluation_transform(exported.geometry, exported.preprocessing)
    prepared = transform(shown.convert(pictures.mode(exported.geometry))).numpy()
    return probe.encoded(shown), prepared


def _require_elsewhere(folder: Path, *sources: str | Path | None) -> None:
    """Check that the site does not go among what it is made from.

    Raises:
        InputError: It does.
    """
    place = folder.resolve()
    for source in sources:
        if source is None:
            continue
        given = Path(source).resolve()
        inside = given if os.path.isdir(source) else given.parent
        if inside == place or (os.path.isdir(source) and inside in place.parents):
            raise InputError(
                f"the site would go to {folder}, where {source} is; choose another folder with "
                "--output"
            )
