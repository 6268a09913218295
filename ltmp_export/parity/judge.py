"""The verdict of one image in one run, from what was observed.

What rounding does is measured, on all images of the check: see `parity.limits`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ltmp_export.images.inputs import Images
from ltmp_export.parity import outputs
from ltmp_export.parity.differences import BlockDeviation, VectorDifference
from ltmp_export.parity.limits import Limits, mean_ratio
from ltmp_export.parity.replay import Observation
from ltmp_export.parity.report import Comparison, Flip
from ltmp_export.parity.tolerances import MEAN_FACTOR
from ltmp_export.plan.outputs import LOGITS


def judge_all(seen: Sequence[Observation], images: Images, allowed: Limits) -> list[Comparison]:
    """A comparison for each observation."""
    comparisons = [_judge(one, images, allowed) for one in seen]
    for index, other in _exchanged(seen, comparisons, allowed):
        hint = f"; its logits are those of {images.names[other]}"
        comparisons[index] = replace(comparisons[index], reason=comparisons[index].reason + hint)
    return comparisons


def _judge(one: Observation, images: Images, allowed: Limits) -> Comparison:
    """The verdict of one image in one run."""
    flips = tuple(
        Flip(decision, allowed.bound((block, place)))
        for block, at in enumerate(one.deviation.blocks)
        for place, step in enumerate(at.steps)
        for decision in step.flips
    )
    verdict, block, where, reason = "equal", None, "", ""
    fault = next(_faults(one, allowed), None)
    if not one.comparable:
        verdict, where = "inconclusive", "reference"
        reason = "NaN or infinite numbers in the reference itself: nothing to compare with"
    elif fault is not None:
        verdict, (block, where, reason) = "fail", fault
        if one.unseen and all(map(math.isfinite, one.deviation.given.values())):
            verdict, reason = "inconclusive", f"{reason}; {one.unseen}"
    elif flips:
        verdict, block = "borderline", flips[0].decision.block
        where, more = f"block {block}", f"; {len(flips)} decisions in all" if flips[1:] else ""
        reason = f"{where}: {flips[0].describe()}{more}"
    margins = [
        (step.margin, number)
        for number, at in enumerate(one.deviation.blocks)
        for step in at.steps
        if step.margin < math.inf
    ]
    margin, margin_block = min(margins, default=(math.inf, None))
    return Comparison(
        number=one.number,
        image=images.names[one.number],
        group=images.groups[one.number],
        batch_size=one.run.size,
        order=one.run.order,
        verdict=verdict,
        where=where,
        block=block,
        reason=reason,
        counts=one.counts,
        expected_counts=one.expected_counts,
        overflow=sum(_dropped(one)),
        flips=flips,
        errors=one.deviation.given,
        allowed=allowed.given,
        top1=outputs.top1(one.given),
        expected_top1=outputs.top1(one.expected),
        margin=margin,
        margin_block=margin_block,
    )


Fault = tuple[int | None, str, str]  # block, where, reason


def _faults(one: Observation, allowed: Limits) -> Iterator[Fault]:
    """What is wrong with one image, in the order of the computation."""
    found = one.deviation
    if not found.embedded.difference <= allowed.embedded:
        words = _vectors("before the first block", found.embedded, allowed.embedded)
        yield None, "embedding", f"embedding: {words}"
    for path, excess in found.excess.items():
        if not excess <= allowed.excess:
            at = int(path.split(".")[1]) if path.startswith("blocks.") else None
            where = "head" if at is None else f"block {at}"
            words = f"what {path} is given is not its input rounded: off by {excess:.2g} steps more"
            yield at, where, f"{where}: {words} than rounding explains"
    for number, block in enumerate(found.blocks):
        for words in _block_faults(number, block, allowed, one.inside):
            yield number, f"block {number}", f"block {number}: {words}"
        ratio = min(allowed.ratios[number], mean_ratio(one, number))
        if ratio > MEAN_FACTOR:
            words = (
                f"block {number}: with the same decisions the vectors after it differ by "
                f"{block.tokens.mean:.1e} on average, {ratio:.1f} times what rounding explains"
            )
            yield number, f"block {number}", words
    if one.broken:
        number = len(found.blocks)
        yield number, f"block {number}", f"block {number}: broken decisions: {one.broken}"
    yield from _other_counts(one)
    yield from _head_faults(one, allowed)


def _other_counts(one: Observation) -> Iterator[Fault]:
    """Where token counts are not the reference's, of a file whose own decisions are not seen."""
    if one.inside or one.stated is None:
        return
    for block, (found, expected) in enumerate(zip(one.stated, one.counts, strict=True)):
        if found != expected:
            words = f"block {block}: {found} tokens in token_counts, {expected} in the reference"
            yield block, f"block {block}", words


def _head_faults(one: Observation, allowed: Limits) -> Iterator[Fault]:
    """What is wrong with what the file gives."""
    for name, error in one.deviation.given.items():
        if not error <= allowed.given[name]:
            words = f"with the same decisions the {name} {differ(error, allowed.given[name])}"
            yield None, "head", f"head: {words}"
    counts_differ = one.inside and one.stated is not None and tuple(one.stated) != one.counts
    if counts_differ or one.counts != one.replay_counts:
        yield None, "head", "head: the file's token counts are not those of its own decisions"
    if one.overflow is not None and tuple(one.overflow) != _dropped(one):
        yield None, "head", "head: the file's overflow is not what its own decisions drop"
    for name, apart in outputs.differences(one.given, one.tapped).items():
        if not apart <= max(allowed.given[name], allowed.rerounded):
            words = f"the {name} change by {apart:.1e} when the file's tensors are read"
            yield None, "head", f"head: {words}"


def _dropped(one: Observation) -> tuple[int, ...]:
    """Tokens that the file's budget has no room for, by block."""
    blocks = one.deviation.blocks
    return tuple(sum(step.dropped for step in block.steps) for block in blocks)


def _block_faults(
    number: int, block: BlockDeviation, allowed: Limits, inside: bool
) -> Iterator[str]:
    for place, step in enumerate(block.steps):
        key = number, place
        off = step.largest
        if off is not None and not off.difference <= allowed.scores[key]:
            yield (
                f"the {off.what} of token {off.token} is {off.score:.6g} in the file, "
                f"{off.expected:.6g} in the reference{_cut(step.threshold)}: they "
                f"{differ(off.difference, allowed.scores[key])}"
            )
        bound = allowed.bound(key)
        far = [flip for flip in step.flips if not flip.distance <= bound]
        if far:
            more = f"; {len(step.flips)} decisions of this step differ" if step.flips[1:] else ""
            yield far[0].describe(bound) + more
        if inside and step.unfounded is not None:
            token, score = step.unfounded
            yield (
                f"what becomes of token {token} does not follow from the file's own score "
                f"{score:.9g}{_cut(step.threshold, 9)}"
            )
    if not block.sizes <= allowed.sizes[number]:
        yield f"a token stands for {block.sizes:g} patches more or less than in the reference"
    if not block.tokens.difference <= allowed.tokens[number]:
        words = _vectors("after it", block.tokens, allowed.tokens[number])
        yield f"with the same decisions {words}"


def _cut(threshold: float, digits: int = 6) -> str:
    """What divides the scores, if anything does."""
    return f", threshold {threshold:.{digits}g}" if math.isfinite(threshold) else ""


def _vectors(where: str, found: VectorDifference, allowed: float) -> str:
    return (
        f"the vectors {where} {differ(found.difference, allowed)}, of token {found.token} the most"
    )


def differ(error: float, allowed: float) -> str:
    """How far off something is, and what is allowed."""
    if math.isnan(error):
        return "hold a NaN in the file"
    return f"differ by {error:.1e} (allowed {allowed:.1e})"


def _exchanged(
    seen: Sequence[Observation], comparisons: Sequence[Comparison], allowed: Limits
) -> Iterator[tuple[int, int]]:
    """Comparisons that fail with the logits of another image, and that image."""
    limit = allowed.given.get(LOGITS)
    if limit is None:
        return
    expected = {one.number: one.expected[LOGITS] for one in seen}
    table = np.stack(list(expected.values()))  # [n, classes]
    scale = np.abs(table).max(axis=1, initial=1.0)
    for index, (one, comparison) in enumerate(zip(seen, comparisons, strict=True)):
        if comparison.verdict == "fail":
            with np.errstate(invalid="ignore"):  # what is infinite is like nothing
                apart = np.abs(table - one.given[LOGITS]).max(axis=1) / scale
                own = np.abs(table - expected[one.number]).max(axis=1) / scale
            others = np.flatnonzero((apart <= limit) & (own > limit))
            if len(others):
                yield index, list(expected)[int(others[0])]
