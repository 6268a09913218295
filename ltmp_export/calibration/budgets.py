"""How many tokens each block may keep where shapes have to be static.

A budget is the number of rows that a block's MLP, and the next block, run on for every image. An
image that needs fewer tokens leaves rows empty; one that needs more loses its least important ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.graph import interface
from ltmp_export.images import inputs
from ltmp_export.images.inputs import Images, batches
from ltmp_export.model_file import model
from ltmp_export.plan import pairing
from ltmp_export.plan.plan import Plan
from ltmp_export.plan.vit import Vit
from ltmp_export.progress import Progress, silent
from ltmp_export.runtimes.recording import TappedSession
from ltmp_export.statements import wishes

BATCH = 8


class Budget(NamedTuple):
    """A budget, and what images it was made from.

    Attributes:
        keep: [depth] tokens that each block may keep.
        images: How many images were measured; 0 for a budget that was stated.
        fitting: How many of them lose nothing in any block.
    """

    keep: tuple[int, ...]
    images: int = 0
    fitting: int = 0


def require_learned(plan: Plan) -> None:
    """Check that a plan's counts depend on the image.

    Raises:
        InputError: They do not.
    """
    if plan.static:
        raise InputError(
            f"family {plan.family} keeps the same number of tokens of every image: its graph is "
            "static without --keep-tokens"
        )


def stated(text: str, vit: Vit) -> Budget:
    """A budget written as one number for each block.

    Raises:
        InputError: It is no such thing, or does not fit the model.
    """
    try:
        keep = tuple(int(part) for part in text.split(","))
    except ValueError:
        keep = ()
    if not keep:
        raise InputError(
            f"--keep-tokens {text}: expected a number of tokens for each block, like 160,150,…, or "
            "auto:p99 to have them measured on --images"
        )
    if len(keep) != vit.depth:
        raise InputError(
            f"--keep-tokens {text}: {len(keep)} numbers, but the model has {vit.depth} blocks"
        )
    falling = all(b <= a for a, b in zip((vit.tokens, *keep), keep, strict=False))
    least = pairing.least(vit.prefix)
    if not falling or keep[-1] < least:
        raise InputError(
            f"--keep-tokens {text}: expected numbers that do not rise, from at most {vit.tokens} "
            f"({_shares(vit)}) down to at least {least}"
        )
    return Budget(keep)


def _shares(vit: Vit) -> str:
    """What a model's tokens are, for a person."""
    if not vit.prefix:
        return f"{vit.patches} patches, no class token"
    if vit.class_token and vit.prefix == 1:
        return "the class token included"
    return f"{vit.patches} patches and {vit.prefix} before them"


def _bounds(source: Checkpoint) -> tuple[int, ...]:
    """[depth] the most tokens that an image can have, where some block's steps tell of a bound."""
    geometry, plan = source.geometry, source.plan
    most = [rows.kept for rows in geometry.rows(plan)]
    bounded = not isinstance(geometry, Vit) or most[-1] < geometry.tokens
    return tuple(most) if bounded else ()


def measured(
    checkpoint: Checkpoint,
    images: Images,
    share: float,
    opset: int,
    progress: Progress = silent,
) -> Budget:
    """The smallest budget that holds a share of the images' tokens, block by block.

    Args:
        checkpoint: Whose tokens; its dynamic graph is run on the images.
        images: Pictures like those the model will see.
        share: Of the images that must fit in each block, above 0 and up to 1.
        opset: Of that graph.
        progress: Called with a few words as it goes.

    Raises:
        InputError: The model has fewer tokens than a static graph needs.
    """
    least = pairing.least(checkpoint.vit.prefix)
    if checkpoint.vit.tokens < least:
        raise InputError(
            f"a static graph needs {least} tokens; this model has {checkpoint.vit.tokens}"
        )
    taps = interface.count_taps(checkpoint.vit.depth)
    session = TappedSession(model.to_onnx(checkpoint, opset=opset), taps)
    found: list[NDArray[np.int64]] = []
    for index in batches(len(images), min(BATCH, len(images))):
        result = session.run(images.pixels[index])
        found.append(np.stack([result[name] for name in taps], 1))
        done = min(len(images), len(found) * BATCH)
        progress(f"counting tokens of image {done} of {len(images)}")
    counts = np.concatenate(found)[: len(images)]  # [n, depth]
    keep = np.quantile(counts, share, axis=0, method="higher").clip(min=least)
    fitting = int((counts <= keep).all(1).sum())
    return Budget(tuple(int(most) for most in keep), len(images), fitting)


def asked(
    source: Checkpoint,
    mode: str | None,
    keep_tokens: str | None,
    images: str | Path | None,
    samples: int | None,
    opset: int,
    progress: Progress,
) -> tuple[Budget | None, tuple[str, ...]]:
    """What a static file of a family with thresholds may keep; None for any other file.

    Args:
        source: The checkpoint.
        mode: "static", "dynamic" or None.
        keep_tokens: The budget in the words of `--keep-tokens`, or None.
        images: What to measure it on.
        samples: At most so many of these.
        opset: Of the files that measure it.
        progress: Called with a few words as each stage begins.

    Returns:
        That, and what should be known of the images it was measured on.

    Raises:
        InputError: Mode, budget and images do not go together, or not with the family.
    """
    wishes.require_budget(mode, keep_tokens, images, samples)
    family = source.plan.family
    if mode == "dynamic" and source.plan.static:
        raise InputError(
            f"family {family} keeps the same number of tokens of every image, and has no dynamic "
            "form; drop --mode"
        )
    automatic = keep_tokens is not None and wishes.is_automatic(keep_tokens)
    if keep_tokens is not None:
        require_learned(source.plan)
    if source.plan.static or mode != "static":
        return None, ()
    if keep_tokens is None and (most := _bounds(source)):
        return Budget(most), ()
    if keep_tokens is None:
        raise InputError(
            f"family {family} keeps as many tokens as an image needs; state the most that each "
            "block may keep with --keep-tokens 160,150,…, or --keep-tokens auto:p99 --images DIR"
        )
    if not automatic:
        return stated(keep_tokens, source.vit), ()
    share = wishes.quantile(keep_tokens)
    assert images is not None
    inputs.require_normalisation(Path(images), source.preprocessing)
    found = inputs.load_images(Path(images), source.vit, source.preprocessing, samples)
    return measured(source, found, share, opset, progress), found.remarks
