"""Files that take pictures: made, and held to timm's transform."""

from __future__ import annotations

import onnx

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.images import pictures
from ltmp_export.model_file import pictured
from ltmp_export.model_file.model import ExportedModel
from ltmp_export.parity.pictured import PicturesDistance, distance
from ltmp_export.parity.report import CheckReport


def take_pictures(
    model: onnx.ModelProto, source: Checkpoint, opset: int, report: CheckReport | None
) -> CheckReport | None:
    """Make a model take pictures, see `model_file.pictured`.

    Args:
        model: It, changed in place.
        source: What it was written of.
        opset: That it declares.
        report: What a check of it found, if there was one: then what it makes of pictures is
            compared with timm's transform, too.

    Returns:
        The report, with that.

    Raises:
        InputError: The model has no channels that pictures have.
        CheckFailedError: It prepares them otherwise than timm does.
    """
    geometry, rule = source.geometry, source.preprocessing
    pictures.mode(geometry)
    pictured.put_before(model, geometry.input_size, rule, opset)
    if report is None:
        return None
    front = pictured.front_of(model)
    told = report.with_pictures(distance(front, geometry, rule))
    told.require()
    return told


def distance_of(exported: ExportedModel) -> PicturesDistance | None:
    """How far from timm's what a file makes of pictures is; None where it takes none."""
    if exported.front is None:
        return None
    return distance(exported.front, exported.geometry, exported.preprocessing)


def require_images(exported: ExportedModel, what: str) -> None:
    """Check that a file takes model inputs, for what runs it elsewhere.

    Raises:
        InputError: It takes pictures.
    """
    if exported.front is not None:
        raise InputError(
            f"{exported.path} takes pictures, and {what} feeds model inputs; export it without "
            "--with-preprocessing for that"
        )
