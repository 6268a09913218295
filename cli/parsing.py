"""From what was typed to values, and what goes together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ltmp_export.statements.choices import Choices


def choices(
    family: str | None = None,
    model: str | None = None,
    base_checkpoint: Path | None = None,
    use_ema: bool | None = None,
    num_heads: int | None = None,
    image_size: str | None = None,
    mean: str | None = None,
    std: str | None = None,
    pool: str | None = None,
    act: str | None = None,
    norm_eps: float | None = None,
    assume_defaults: bool | None = None,
    rate: str | None = None,
    reduction_target: float | None = None,
    merge_at: str | None = None,
    merge_scale: str | None = None,
) -> Choices:
    """What the user stated about the checkpoint.

    Raises:
        InputError: A value does not parse.
    """
    size = None if image_size is None else integers("--img-size", image_size, "224,160")
    at = None if merge_at is None else integers("--merge-at", merge_at, "3,6,9", least=0)
    from ltmp_export.errors import InputError
    from ltmp_export.statements.choices import Choices

    if size is not None and len(size) > 2:
        raise InputError(f"--img-size {image_size}: expected one number, or height,width")
    return Choices(
        family=family,
        model=model,
        base_checkpoint=base_checkpoint,
        use_ema=use_ema,
        num_heads=num_heads,
        image_size=None if size is None else (size[0], size[-1]),
        mean=None if mean is None else _numbers("--mean", mean),
        std=None if std is None else _numbers("--std", std),
        pool=pool,
        act=act,
        norm_eps=norm_eps,
        assume_defaults=assume_defaults,
        rate=rate,
        reduction_target=reduction_target,
        merge_at=at,
        merge_scale=merge_scale,
    )


def integers(flag: str, text: str, example: str, least: int = 1) -> tuple[int, ...]:
    """Integers of at least `least`, separated by commas.

    Raises:
        InputError: Something else was given.
    """
    from ltmp_export.errors import InputError

    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or min(values) < least:
        raise InputError(
            f"{flag} {text}: expected whole numbers of {least} or more, like {example}"
        )
    return values


def targets(reduction_target: float | None, sweep: str | None) -> tuple[float, ...]:
    """The one target, or those to compare.

    Raises:
        InputError: Neither or both were given, or something that is no number.
    """
    from ltmp_export.errors import InputError

    if sweep is None and reduction_target is not None:
        return (reduction_target,)
    if sweep is None:
        raise InputError("give a target, --reduction-target 0.6, or several, --sweep 0.9,0.8,0.7")
    if reduction_target is not None:
        raise InputError("--sweep has its own targets; drop --reduction-target")
    return _numbers("--sweep", sweep, "0.9,0.8,0.7")


def merge_share(text: str) -> float:
    """The share in `merge=0.7` or `prune=0.3`.

    Raises:
        InputError: Something else was given.
    """
    from ltmp_export.errors import InputError

    kind, _, share = text.partition("=")
    try:
        number = float(share)
    except ValueError:
        number = -1.0
    if kind not in ("merge", "prune") or not 0.0 <= number <= 1.0:
        raise InputError(f"--split {text}: expected a share from 0 to 1, like merge=0.7")
    return number if kind == "merge" else 1.0 - number


def _numbers(flag: str, text: str, example: str = "0.5,0.5,0.5") -> tuple[float, ...]:
    from ltmp_export.errors import InputError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as err:
        raise InputError(f"{flag} {text}: expected numbers, for example {example}") from err


def require_outputs(outputs: Sequence[Path | None], inputs: Sequence[Path | None] = ()) -> None:
    """Check report files before the work, not after it.

    Raises:
        InputError: One cannot be written, or is another file of the same command.
    """
    from ltmp_export.files import disk

    def given(paths: Sequence[Path | None]) -> list[Path]:
        return [path for path in paths if path is not None]

    disk.require_outputs(given(outputs), given(inputs))


def model_and_checkpoint(model: Path | None, checkpoint: Path | None) -> tuple[Path, Path]:
    """Both, where both are needed.

    Raises:
        InputError: One was not given.
    """
    if model is None or checkpoint is None:
        from ltmp_export.errors import InputError

        missing = "MODEL.onnx and CHECKPOINT" if model is None else "CHECKPOINT"
        raise InputError(f"{missing} missing: ltmp check MODEL.onnx CHECKPOINT, or --repro DIR")
    return model, checkpoint


def require_alone(flag: str, value: object, others: Mapping[str, object]) -> None:
    """Check that a flag, if it was given, stands without others that it makes meaningless.

    Raises:
        InputError: One of them was given, too.
    """
    given = [name for name, other in others.items() if other is not None]
    if value is not None and given:
        from ltmp_export.errors import InputError

        raise InputError(f"{flag} brings its own images and batch; drop {', '.join(given)}")


def require_beside(flag: str, value: object, needed: str, other: object) -> None:
    """Check that a flag, if it was given, has the one it belongs to.

    Raises:
        InputError: It has not.
    """
    if value is not None and other is None:
        from ltmp_export.errors import InputError

        raise InputError(f"{flag} is about {needed}; give that, too")


def require_new_folder(folder: Path | None, others: Sequence[Path | None]) -> None:
    """Check before the work that a folder can be written, apart from other outputs.

    Raises:
        InputError: It holds something, cannot be made, or is one of the others.
    """
    if folder is not None:
        from ltmp_export.errors import InputError
        from ltmp_export.parity import repro

        repro.require_new(folder)
        if folder.resolve() in [path.resolve() for path in others if path is not None]:
            raise InputError(f"{folder} is also the output of another flag; choose another")


def require_takeable(
    checkpoint: Path, choices: Choices, *, dense: bool = False, learn: bool = False
) -> None:
    """Refuse a checkpoint before what takes seconds to import, see
    `checkpoint.refusals.require_takeable`.

    Raises:
        InputError: It cannot be used.
    """
    from ltmp_export.checkpoint import refusals

    refusals.require_takeable(checkpoint, choices, dense=dense, learn=learn)


def require_measurable(model: Path, choices: Choices) -> None:
    """The same for a model that may be an exported one.

    Raises:
        InputError: It is a checkpoint, and cannot be used.
    """
    from ltmp_export.checkpoint import hub
    from ltmp_export.files import disk

    if hub.names_a_model(model) or model.is_dir():
        require_takeable(model, choices, dense=True)
        return
    disk.require_file(model, "an ONNX model or a checkpoint")
    if not disk.looks_like_onnx(model):
        require_takeable(model, choices, dense=True)


def require_checkable(
    model: Path | None, checkpoint: Path | None, choices: Choices, repro: Path | None
) -> None:
    """The same for what is to be compared; the model says how the checkpoint is to be taken.

    Raises:
        InputError: One is missing or cannot be used.
    """
    from ltmp_export.checkpoint import refusals
    from ltmp_export.files import disk

    if repro is None:
        model, checkpoint = model_and_checkpoint(model, checkpoint)
    if model is not None:
        disk.require_file(model, "an ONNX model")
    if checkpoint is not None:
        refusals.require_readable(checkpoint, choices)
