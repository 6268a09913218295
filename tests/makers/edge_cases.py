"""Models whose decisions lie where a test wants them."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.images import inputs
from ltmp_export.model_file.model import to_onnx
from ltmp_export.parity import taps
from ltmp_export.plan.plan import Plan
from ltmp_export.reference import Reference
from ltmp_export.runtimes import recording


def with_threshold(checkpoint: Checkpoint, kind: type, value: float, block: int = 0) -> Checkpoint:
    """Another threshold in one block, for the reference and for what is exported."""
    blocks = list(checkpoint.plan.blocks)
    blocks[block] = tuple(kind(value) if isinstance(s, kind) else s for s in blocks[block])
    return dataclasses.replace(checkpoint, plan=Plan(checkpoint.plan.family, tuple(blocks)))


def on_the_threshold(
    checkpoint: Checkpoint, images: inputs.Images, kind: type, block: int = 0
) -> Checkpoint:
    """A model whose block decides about one token of image 0 by rounding alone.

    Its threshold is that token's own score, to the last bit of the reference's float64. The
    reference drops the token, since the score is not above the threshold. A runtime in float32
    takes it where its rounding of the score lands above its rounding of the threshold: in about
    half the cases, of which one is chosen here whose score float32 rounds up, if there is any, so
    that a checkpoint that stores the threshold in float32 does the same. Where rounding never lands
    above, the threshold is the next number below the score: there the reference takes the token.
    """
    place = [isinstance(step, kind) for step in checkpoint.plan.blocks[block]].index(True)
    model = to_onnx(checkpoint, opset=17)
    outputs = recording.TappedSession(model, taps.names(checkpoint.plan)).run(images.pixels[:1])
    record = taps.read(checkpoint.plan, outputs, 0, checkpoint.vit.patches + 1)
    reference = Reference(checkpoint.model, checkpoint.plan, torch.float64)
    trace = reference.run(torch.from_numpy(images.pixels[0]), record.choices())
    own = trace.decisions[block][place].score[1:].numpy()
    rounded = own.astype(np.float32)
    above = record.blocks[block].steps[place].score[1:] > rounded
    stored = above & (rounded >= own)
    fitting = stored if stored.any() else above
    if fitting.any():
        score = float(own[fitting][fitting.sum() // 2])
    else:
        score = float(np.nextafter(own[len(own) // 2], -np.inf))
    return with_threshold(checkpoint, kind, score, block)
