"""Is the exported file the model of the checkpoint? Counts, logits and top-1, image by image.

The file's decisions (who merges, into whom, who stays) are read from its named tensors, and the
reference, in float64, is made to take the same ones: so every later block and the logits stay
comparable, and each decision that the reference would take otherwise has a true distance from its
threshold. Verdict of one image in one batch:

    equal       the reference takes every decision alike, logits within the tolerance
    borderline  the logits agree under the file's decisions, and each decision that differs is
                nearer to its threshold than `BORDERLINE` of the score's scale
    fail        a decision differs by more, the logits differ under the same decisions, the counts
                are not those of the decisions, or a NaN is anywhere

and of all together the worst of these, or `inconclusive` where nothing was compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from ltmp_export import decisions, runtime
from ltmp_export.checkpoint import Checkpoint
from ltmp_export.decisions import Disagreement
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
        reason: Why it is not equal, else an empty string.
        counts: Tokens after each block in the file.
        expected_counts: The same in the reference.
        first_block: First block with a decision that differs, or None.
        differing: The decisions that differ.
        logit_error: Largest absolute difference of a logit under the same decisions.
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
    differing: tuple[Disagreement, ...]
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
            for values in (comparison, *comparison["differing"]):
                for key, value in values.items():
                    if isinstance(value, float) and not math.isfinite(value):
                        values[key] = None
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
    session = runtime.TappedSession(
        model, decisions.taps(checkpoint.plan) | runtime.count_taps(checkpoint.vit.depth)
    )
    judge = _Judge(checkpoint)
    found = [
        comparison
        for size in (batch_sizes if len(images) else ())
        for comparison in judge.batches_of(size, session, images)
    ]
    return CheckReport(
        _overall(found),
        str(name),
        str(checkpoint.path),
        images.origin,
        tuple(found),
        tuple(warnings),
    )


class _Judge:
    """Compares a file's outputs with the reference that is made to take the file's decisions."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.plan = checkpoint.plan
        self.initial_tokens = checkpoint.vit.patches + 1
        self.count_names = list(runtime.count_taps(checkpoint.vit.depth))
        self.reference = Reference(checkpoint.model, checkpoint.plan, torch.float64)
        self.replays: dict[tuple[int, bytes], tuple[Trace, list[Disagreement]]] = {}

    def batches_of(
        self, size: int, session: runtime.TappedSession, images: Images
    ) -> Iterator[Comparison]:
        """Every image once, in batches of `size`."""
        for start, index in zip(
            range(0, len(images), size), batches(len(images), size), strict=True
        ):
            outputs = session.run(images.pixels[index])
            for row in range(min(size, len(images) - start)):
                yield self.judge(size, images, start + row, row, outputs)

    def judge(
        self,
        batch_size: int,
        images: Images,
        number: int,
        row: int,
        outputs: Mapping[str, NDArray[Any]],
    ) -> Comparison:
        """Judge one image: row `row` of the outputs of a batch."""
        logits = outputs["logits"][row]
        counts = tuple(int(outputs[name][row]) for name in self.count_names)
        image = torch.from_numpy(images.pixels[number])
        differing: list[Disagreement] = []
        try:
            choices = decisions.choices(self.plan, outputs, row, self.initial_tokens)
        except (ValueError, IndexError) as err:
            replay, reason = self.reference.run(image), f"broken decisions: {err}"
        else:
            replay, differing = self.replay(number, image, choices)
            reason = _numeric_difference(logits, replay)
            stated = outputs.get("token_counts")
            if replay.counts != counts or (stated is not None and tuple(stated[row]) != counts):
                reason = reason or "the file's token counts are not those of its own decisions"
        expected = self.reference.run(image) if differing else replay
        verdict = _verdict(reason, differing)
        if differing and not reason:
            reason = _describe(differing, counts, expected.counts)
        return _comparison(
            images.names[number], batch_size, verdict, reason, counts, logits, replay, expected,
            differing,
        )  # fmt: skip

    def replay(
        self, number: int, image: torch.Tensor, choices: decisions.Choices
    ) -> tuple[Trace, list[Disagreement]]:
        """The reference under the file's decisions; the same decisions are replayed once."""
        taken = (t for steps in choices for c in steps for t in (c.chosen, c.partner))
        digest = b"".join(t.numpy().tobytes() for t in taken if t is not None)
        if (number, digest) not in self.replays:
            trace = self.reference.run(image, choices)
            self.replays[number, digest] = trace, decisions.disagreements(trace, choices)
        return self.replays[number, digest]


def _allowed(expected: NDArray[Any]) -> float:
    return LOGIT_TOLERANCE * max(1.0, float(np.abs(expected).max()))


def _numeric_difference(logits: NDArray[Any], replay: Trace) -> str:
    """Why the logits are not the replay's, or nothing."""
    expected = replay.logits.numpy()
    if not (np.isfinite(logits).all() and np.isfinite(expected).all()):
        where = "the file" if np.isfinite(expected).all() else "the reference"
        return f"NaN or infinite logits in {where}"
    error = float(np.abs(logits - expected).max())
    if not error <= _allowed(expected):
        return (
            f"with the same decisions the logits differ by {error:.2g}, "
            f"allowed {_allowed(expected):.2g}"
        )
    return ""


def _verdict(reason: str, differing: Sequence[Disagreement]) -> str:
    if reason or any(not d.distance < BORDERLINE for d in differing):
        return "fail"
    return "borderline" if differing else "equal"


def _describe(
    differing: Sequence[Disagreement], counts: tuple[int, ...], expected: tuple[int, ...]
) -> str:
    """The decision that matters most: the first that is not close, else the first."""
    far = [d for d in differing if not d.distance < BORDERLINE]
    worst = (far or list(differing))[0]
    compared = "another partner's" if worst.what == "partner" else "threshold"
    return (
        f"block {worst.block} keeps {counts[worst.block]} tokens, the reference "
        f"{expected[worst.block]}; {len(differing)} decisions differ: {worst.what}, token "
        f"{worst.token}, score {worst.score:.6g}, {compared} {worst.threshold:.6g}, "
        f"{worst.distance:.1e} of the scale apart"
    )


def _comparison(
    name: str,
    batch_size: int,
    verdict: str,
    reason: str,
    counts: tuple[int, ...],
    logits: NDArray[Any],
    replay: Trace,
    expected: Trace,
    differing: Sequence[Disagreement],
) -> Comparison:
    margins = replay.margins()
    block = int(np.argmin(margins))
    return Comparison(
        image=name,
        batch_size=batch_size,
        verdict=verdict,
        reason=reason,
        counts=counts,
        expected_counts=expected.counts,
        first_block=differing[0].block if differing else None,
        differing=tuple(differing),
        logit_error=float(np.abs(logits - replay.logits.numpy()).max()),
        allowed_error=_allowed(replay.logits.numpy()),
        top1=int(np.argmax(logits)),
        expected_top1=int(np.argmax(expected.logits.numpy())),
        margin=margins[block],
        margin_block=block if math.isfinite(margins[block]) else None,
    )


def _overall(found: Sequence[Comparison]) -> str:
    if not found:
        return "inconclusive"
    verdicts = {comparison.verdict for comparison in found}
    return next(v for v in ("fail", "borderline", "equal") if v in verdicts)
