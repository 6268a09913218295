"""What one would pick instead of the exported file: other runtimes, and the plain exporter."""

from __future__ import annotations

from pathlib import Path

from ltmp_export.checkpoint import hub
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import LtmpError
from ltmp_export.runtimes import session
from ltmp_export.timing import elsewhere, literal
from ltmp_export.timing.contenders import DENSE, EAGER, LITERAL, REDUCED, Contender
from ltmp_export.timing.processes import Process


def rivals(
    checkpoint: Checkpoint, folder: Path, model: Path, dense: Path | None
) -> tuple[list[Contender], dict[str, str]]:
    """Contenders beside an exported file.

    Args:
        checkpoint: The checkpoint it was exported from.
        folder: For the literal export.
        model: The exported file.
        dense: The dense model of the same weights.

    Returns:
        The contenders, none of them required, and why there are not more, by label.
    """
    base = checkpoint.choices.base_checkpoint
    eager = Contender(
        EAGER,
        "eager",
        checkpoint.path.resolve(),
        choices=checkpoint.choices.to_json(),
        base_checkpoint=None if base is None else hub.absolute(base),
        single=True,
    )
    found, refused = [], {}
    exported = folder / "literal.onnx"
    reason = literal.untranslated(checkpoint.model, checkpoint.plan)
    if not reason:
        found.append(eager)
        try:
            start = eager.start() | {"kind": "literal", "output": str(exported)}
            with Process(LITERAL, start, folder) as process:
                process.open()
            found.append(Contender(LITERAL, session.ONNXRUNTIME, exported, single=True))
        except LtmpError as err:
            refused[LITERAL] = str(err)
    else:
        refused = dict.fromkeys((EAGER, LITERAL), reason)
    files = {DENSE: dense, REDUCED: model}
    return found + elsewhere.contenders(elsewhere.others(), files), refused
