"""A manifest of KServe that runs the model of a repository in Triton.

Names as in the documentation of KServe's InferenceService, v1beta1.
"""

from __future__ import annotations

import json
import re

from ltmp_export.errors import InputError
from ltmp_export.serving.triton import Deployment

_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_URI = re.compile(r"[a-z][a-z0-9+.-]*://\S+")


def manifest(deployment: Deployment, storage_uri: str) -> str:
    """The text of the manifest, YAML.

    Args:
        deployment: As of the repository.
        storage_uri: Where the repository will lie, for the cluster: `s3://…`, `pvc://…`.

    Raises:
        InputError: Kubernetes takes no such name, or the address is none.
    """
    if not _URI.fullmatch(storage_uri):
        raise InputError(
            f"--storage-uri {storage_uri!r:.80}: expected where the cluster finds the repository, "
            "like s3://bucket/models or pvc://claim/models"
        )
    name = deployment.name.lower().replace("_", "-").replace(".", "-")
    if not _LABEL.fullmatch(name):
        raise InputError(
            f"model name {deployment.name!r:.80} makes no name of Kubernetes (letters, digits and "
            "-, the first a letter, at most 63); state another with --name"
        )
    lines = [
        "apiVersion: serving.kserve.io/v1beta1",
        "kind: InferenceService",
        "metadata:",
        f"  name: {name}",
        "spec:",
        "  predictor:",
        "    model:",
        "      modelFormat:",
        "        name: onnx",
        "      runtime: kserve-tritonserver",
        "      protocolVersion: v2",
        f"      storageUri: {json.dumps(storage_uri)}",
    ]
    if deployment.gpu:
        lines += ["      resources:", "        limits:", '          nvidia.com/gpu: "1"']
    return "\n".join(lines) + "\n"
