"""Is the exported file the model of the checkpoint? Counts, logits and top-1, image by image.

The reference runs in float64, so a margin is the true distance of a decision from its threshold.
Verdict of one image in one batch:

    equal       counts equal in every block, logits within the tolerance
    borderline  they differ, but the reference has a decision nearer to its threshold than
                `BORDERLINE` of the score's scale, in or before the first block that differs:
                rounding may tip it, and one token changes everything after it
    fail        they differ without such an excuse, or a NaN is anywhere

and of all together the worst of these, or `inconclusive` where nothing was compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from ltmp_export import runtime
from ltmp_export.checkpoint import Checkpoint
from ltmp_export.errors import CheckFailedError, InputError
from ltmp_export.inputs import Images, batches
from ltmp_export.reference import Reference, Trace

SCHEMA_VERSION = 1
BATCH_SIZES = (1, 2, 7)

# Decisions nearer than this to their threshold, relative to the score's scale, may fall otherwise
# in float32. Measured between PyTorch and onnxruntime: scores differ by up to 2e-6 of their scale.
BORDERLINE = 1e-5

# Largest logit difference allowed, times max(1, the largest logit of the image).
# Measured: 5e-6 on the digits, 1e-5 on DeiT-S.
LOGIT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Comparison:
    """One image in one batch, the file against the reference.

    Attributes:
        image: Name of the image.
        batch_size: Images in the batch it was run in.
        verdict: "equal", "borderline" or "fail".
        reason: Why it is not equal, else "".
        counts: Tokens after each block in the file.
        expected_counts: The same in the reference.
        first_block: First block whose counts differ, or None.
        logit_error: Largest absolute difference of a logit.
        allowed_error: The tolerance for this image.
        top1: Index of the file's largest logit.
        expected_top1: The same in the reference.
        margin: Relative distance of the reference's closest decision from its threshold.
        margin_block: Block of that decision.
    """

    image: str
    batch_size: int
    verdict: str
    reason: str
    counts: tuple[int, ...]
    expected_counts: tuple[int, ...]
    first_block: int | None
    logit_error: float
    allowed_error: float
    top1: int
    expected_top1: int
    margin: float
    margin_block: int | None


@dataclass(frozen=True)
class CheckReport:
    """All comparisons of a check.

    Attributes:
        verdict: "equal", "borderline", "fail" or "inconclusive".
        model: The exported file, or what stands for it.
        checkpoint: The checkpoint file.
        images: Where the images come from.
        comparisons: One for each image and batch size.
        warnings: What looks wrong without deciding the verdict.
    """

    verdict: str
    model: str
    checkpoint: str
    images: str
    comparisons: tuple[Comparison, ...]
    warnings: tuple[str, ...] = ()

    def passed(self, strict: bool = False) -> bool:
        """Whether the verdict is equal, or borderline when not strict."""
        return self.verdict == "equal" or (self.verdict == "borderline" and not strict)

    def of(self, verdict: str) -> tuple[Comparison, ...]:
        """The comparisons with that verdict."""
        return tuple(c for c in self.comparisons if c.verdict == verdict)

    def require(self) -> None:
        """Do nothing if the check passed.

        Raises:
            CheckFailedError: It did not; the message names the first failing image.
        """
        if self.passed():
            return
        failing = self.of("fail")
        if not failing:
            raise CheckFailedError(
                "nothing was compared, which proves nothing; give at least one image"
            )
        first = failing[0]
        raise CheckFailedError(
            f"{len(failing)} of {len(self.comparisons)} comparisons fail; the first is "
            f"{first.image} at batch {first.batch_size}: {first.reason}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; a NaN or infinity becomes None."""
        document = asdict(self) | {
            "schema_version": SCHEMA_VERSION,
            "kind": "check",
            "tolerances": {"logits": LOGIT_TOLERANCE, "borderline": BORDERLINE},
        }
        for comparison in document["comparisons"]:
            for key, value in comparison.items():
                if isinstance(value, float) and not math.isfinite(value):
                    comparison[key] = None
        return document


def compare(
    model: onnx.ModelProto,
    checkpoint: Checkpoint,
    images: Images,
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    name: str | Path = "model",
    warnings: Sequence[str] = (),
) -> CheckReport:
    """Run the file in onnxruntime and the reference from the checkpoint, and compare.

    Each batch size runs over all images in turn; the last batch is filled up with the first images,
    so that every batch has the size asked for.

    Raises:
        InputError: The file lacks the named counts of each block, or a batch size is below 1.
        ExportError: onnxruntime does not load or run it.
    """
    if any(size < 1 for size in batch_sizes):
        raise InputError(f"batch sizes {list(batch_sizes)}; every one must be at least 1")
    if len(set(batch_sizes)) < len(batch_sizes):
        raise InputError(f"batch sizes {list(batch_sizes)}: one is there twice")
    session = runtime.CountingSession(model, checkpoint.vit.depth)
    reference = Reference(checkpoint.model, checkpoint.plan, torch.float64)
    traces = reference.run_all(torch.from_numpy(images.pixels))
    found = []
    for size in batch_sizes if len(images) else ():
        logits, counts = _run_in_batches(session, images.pixels, size)
        found += [
            _judge(name, size, row, tokens, trace)
            for name, row, tokens, trace in zip(images.names, logits, counts, traces, strict=True)
        ]
    return CheckReport(
        _overall(found),
        str(name),
        str(checkpoint.path),
        images.origin,
        tuple(found),
        tuple(warnings),
    )


def _run_in_batches(
    session: runtime.CountingSession, pixels: NDArray[np.float32], size: int
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """[n, classes] logits and [n, depth] counts, each row from a batch of `size`."""
    found = [session.run(pixels[index]) for index in batches(len(pixels), size)]
    logits, counts = (np.concatenate(parts)[: len(pixels)] for parts in zip(*found, strict=True))
    return logits, counts


def _judge(
    name: str, batch_size: int, logits: NDArray[Any], counts: NDArray[Any], trace: Trace
) -> Comparison:
    expected = trace.logits.numpy()
    tokens = tuple(int(n) for n in counts)
    first = next(
        (i for i, (a, b) in enumerate(zip(tokens, trace.counts, strict=True)) if a != b), None
    )
    error = float(np.abs(logits.astype(np.float64) - expected).max())
    allowed = LOGIT_TOLERANCE * max(1.0, float(np.abs(expected).max()))
    margins = trace.margins()
    until = len(margins) if first is None else first + 1
    block = int(np.argmin(margins[:until]))
    verdict, reason = "equal", ""
    if not (np.isfinite(logits).all() and np.isfinite(expected).all()):
        where = "the file" if np.isfinite(expected).all() else "the reference"
        verdict, reason = "fail", f"NaN or infinite logits in {where}"
    elif first is not None:
        reason = f"block {first} keeps {tokens[first]} tokens, the reference {trace.counts[first]}"
    elif not error <= allowed:
        reason = f"logits differ by {error:.2g}, allowed {allowed:.2g}"
    if reason and verdict != "fail":
        close = margins[block] < BORDERLINE
        verdict = "borderline" if close else "fail"
        reason += f" (closest decision: {margins[block]:.1g} of its scale, block {block})"
    return Comparison(
        image=name,
        batch_size=batch_size,
        verdict=verdict,
        reason=reason,
        counts=tokens,
        expected_counts=trace.counts,
        first_block=first,
        logit_error=error,
        allowed_error=allowed,
        top1=int(np.argmax(logits)),
        expected_top1=int(np.argmax(expected)),
        margin=margins[block],
        margin_block=block if math.isfinite(margins[block]) else None,
    )


def _overall(found: Sequence[Comparison]) -> str:
    if not found:
        return "inconclusive"
    verdicts = {comparison.verdict for comparison in found}
    return next(v for v in ("fail", "borderline", "equal") if v in verdicts)
