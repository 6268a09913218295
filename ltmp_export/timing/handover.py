"""What the processes of a bench are given: files in a temporary folder, and where these are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ltmp_export.images.inputs import Images
from ltmp_export.model_file import external
from ltmp_export.plan.geometry import Geometry
from ltmp_export.runtimes import providers
from ltmp_export.timing import profiling, roofline, threads
from ltmp_export.timing.contenders import DENSE, GEMMS, REDUCED, Contender
from ltmp_export.timing.processes import Process
from ltmp_export.timing.settings import Settings


class Handover:
    """Models and images, written to a folder.

    Args:
        folder: The folder; whoever made it removes it.
        model: The exported model.
        vit: Its geometry.
        images: The images.
        baseline: What to compare with.
        settings: How to measure; providers by their full names.

    Attributes:
        shared: What every process is told.
        model: The exported model's file.
        baseline: The baseline's, or None.
    """

    def __init__(
        self,
        folder: Path,
        model: onnx.ModelProto,
        vit: Geometry,
        images: Images,
        baseline: onnx.ModelProto | None,
        settings: Settings,
    ) -> None:
        self.folder = folder
        self.providers = settings.providers
        self.model = self._write("model", model)
        self.baseline = None if baseline is None else self._write("baseline", baseline)
        self.gemms = None
        if settings.roofline:
            self.gemms = self._write("gemms", roofline.model(vit))
        np.save(folder / "images.npy", images.pixels)
        self.shared: dict[str, Any] = {
            "images": str(folder / "images.npy"),
            "threads": threads.used(settings),
        }
        self.count = len(images)

    def _write(self, name: str, model: onnx.ModelProto) -> Path:
        path = self.folder / f"{name}.onnx"
        external.store(path, model)
        return path

    def contenders(self, baseline_name: str | None) -> list[Contender]:
        """The model, then the baseline if there is one, then its linear layers if asked for."""
        found = [Contender(REDUCED, "onnxruntime", self.model, self.providers, required=True)]
        if self.baseline is not None:
            label = baseline_name or DENSE
            label = f"./{label}" if label in (REDUCED, GEMMS) else label
            found.append(
                Contender(label, "onnxruntime", self.baseline, self.providers, required=True)
            )
        if self.gemms is not None:
            found.append(Contender(GEMMS, "gemms", self.gemms, self.providers, required=True))
        return found

    def profile(self, settings: Settings, name: str) -> list[dict[str, Any]]:
        """The nodes of the model as onnxruntime ran them; one run only if no profile is wanted.

        Raises:
            UnavailableError: The provider asked for ran none.
        """
        full = settings.profile
        numbers = np.linspace(0, self.count - 1, min(self.count, profiling.IMAGES))
        asked = self.shared | {
            "kind": "profile",
            "file": str(self.model),
            "providers": self.providers,
            "profile": str(self.folder / "profile"),
            "numbers": numbers.round().astype(int).tolist() if full else [0],
            "warmup": profiling.WARMUP if full else 0,
            "rounds": profiling.ROUNDS if full else 1,
        }
        with Process(name, asked, self.folder) as process:
            nodes: list[dict[str, Any]] = process.open()["nodes"]
        providers.require_used(self.providers[0], profiling.placement(nodes), name)
        return nodes
