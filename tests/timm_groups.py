"""Every group of timm's ViTs: the smallest of it, shallow, exported and compared with timm's own.

    python -m tests.timm_groups                      all groups
    python -m tests.timm_groups NAME … [--blocks 0]  models by name, of so many blocks (0: all)
    python -m tests.timm_groups --write              all, and `ltmp_export/backbones/TIMM.md` anew
    python -m tests.timm_groups --beside [--write]   ViTamin's, which a table of their own has

timm makes the model with random weights; this tool reads its file back by its name. With nothing
reduced the file has to give what timm's own model gives; under `m` with r = 4 the check has to
find it equal. A model is exported as most of its pretrained tags are (without a classifier where
they have none) and with a classifier.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import timm
import torch
from torch import Tensor, nn

import ltmp_export
from ltmp_export.backbones import offered
from ltmp_export.backbones.offered import Group
from ltmp_export.errors import InputError, LtmpError
from ltmp_export.statements import timm_names
from ltmp_export.statements.choices import Choices

DOCUMENT = Path(offered.__file__).parent / "TIMM.md"
_COMMAND, END = "python -m tests.timm_groups", "<!-- end -->\n"
BEGIN, BEGIN_BESIDE = f"<!-- {_COMMAND} --write -->\n", f"<!-- {_COMMAND} --beside --write -->\n"
BLOCKS = 2
SIDE = 6  # patches along an image's side
CLASSES = 7
IMAGES = 3
RATE = 4
CLOSE = 2e-4  # of the largest output
GOAL = 0.9  # of the tags


@dataclass(frozen=True)
class Case:
    """One export.

    Attributes:
        name: Of timm's model.
        classes: Outputs of its classifier, or 0 for none.
        blocks: How many it has, 0 for all.
        published: Whether images are of the size that timm has for it, else small ones.
    """

    name: str
    classes: int
    blocks: int = BLOCKS
    published: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of it.

    Attributes:
        error: Largest difference from timm with nothing reduced, as a share of the largest output.
        verdict: Of the check under `RATE`.
        refused: Why it is not taken; then there is no more.
        wrong: What is wrong: it was taken, and gives something else.
    """

    error: float | None = None
    verdict: str = ""
    refused: str = ""
    wrong: str = ""


@dataclass
class Row:
    """A group and what became of its smallest model, without and with a classifier."""

    group: Group
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        """Whether it is taken and right in every form."""
        return bool(self.outcomes) and not any(o.refused or o.wrong for o in self.outcomes.values())


def run(case: Case, folder: Path) -> Outcome:
    """Make, export, compare."""
    try:
        model, images, size = made(case)
    except (InputError, *timm_names.BUILD_ERRORS) as err:
        return Outcome(refused=f"timm does not make it with {case.blocks} blocks: {err}")
    path = folder / f"{case.name}.{case.classes}.pth"
    torch.save({"state_dict": model.state_dict()}, path)
    stated = Choices(family="m", model=case.name, image_size=size)
    try:
        error = _dense_error(model, images, path, stated)
        verdict = _reduced(path, images, stated)
    except LtmpError as err:
        return Outcome(refused=str(err).replace(str(path), case.name))
    except Exception as err:  # a fault of the tool: shown, and the next one runs
        where = traceback.extract_tb(err.__traceback__)[-1]
        at = f"{Path(where.filename).name}:{where.lineno}"
        return Outcome(wrong=f"{type(err).__name__} at {at}: {err}")
    finally:
        path.unlink()
    wrong = "" if error <= CLOSE else f"off by {error:.1e} of the largest output"
    wrong = wrong or ("" if verdict in ("equal", "borderline") else f"check: {verdict}")
    return Outcome(error, verdict, wrong=wrong)


def _shallow(case: Case) -> dict[str, Any]:
    """Timm's arguments for so many blocks; heads of keys that each has are those of the middle."""
    found: dict[str, Any] = {"depth": case.blocks}
    whole: Any = timm_names.create(case.name)
    heads = {getattr(getattr(block, "attn", None), "num_kv_heads", None) for block in whole.blocks}
    if None not in heads:
        middle = whole.blocks[len(whole.blocks) // 2].attn
        if middle.q_proj is not None:
            found["num_kv_heads"] = (middle.num_kv_heads,) * case.blocks
    return found


def made(case: Case) -> tuple[nn.Module, Tensor, tuple[int, int]]:
    """A model of timm's with random weights, images for it, and their size.

    Raises:
        InputError: timm cannot.
        Exception: One of `timm_names.BUILD_ERRORS`, likewise.
    """
    depth = _shallow(case) if case.blocks else {}
    usual: Any = timm_names.create(case.name, **depth)
    embedding = usual.patch_embed
    patches: Sequence[int] = embedding.grid_size
    full: Sequence[int] = embedding.img_size
    size = tuple(side // count * SIDE for side, count in zip(full, patches, strict=True))
    size = tuple(full) if case.published else size
    model = timm.create_model(
        case.name, **depth, num_classes=case.classes, img_size=size, pretrained=False
    )
    fill(model, torch.Generator().manual_seed(len(case.name)))
    channels = timm.get_pretrained_cfg(case.name.partition(".")[0])
    count = 3 if channels is None else channels.input_size[0]
    contrast = torch.linspace(0.3, 2.0, IMAGES)[:, None, None, None]
    generator = torch.Generator().manual_seed(7)
    images = contrast * torch.randn((IMAGES, count, *size), generator=generator)
    return model.eval().requires_grad_(False), images, (size[0], size[1])


def fill(model: nn.Module, generator: torch.Generator) -> None:
    """Draw every weight: attention spread, tokens told apart, each option of the model in use."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(_drawn(name, value, generator))


def _drawn(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(like.shape, generator=generator)
    if (like.ndim > 1 and "token" in name) or "pos_embed" in name or "latent" in name:
        return noise
    if like.ndim == 1 and name.endswith("weight"):  # a norm's
        return (1.4 if ".attn." in name else 1) + 0.3 * noise
    if "gamma" in name:
        return 0.7 + 0.3 * noise
    if like.ndim < 2 or name.endswith("bias"):
        return 0.3 * noise
    gain = 1.5 if "qkv" in name or ".q_proj" in name or ".k_proj" in name else 1.0
    return noise * (gain / math.sqrt(like[0].numel()))


def _dense_error(model: nn.Module, images: Tensor, path: Path, stated: Choices) -> float:
    """Of a file that reduces nothing, against timm's own forward."""
    output = path.with_suffix(".onnx")
    ltmp_export.export(path, output, check=False, choices=_rated(stated, 0))
    session = ort.InferenceSession(output, providers=["CPUExecutionProvider"])
    ours = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    theirs = model(images).numpy()
    if ours.shape != theirs.shape:
        return math.inf
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def _reduced(path: Path, images: Tensor, stated: Choices) -> str:
    """The verdict of the check of a file that reduces."""
    output, source = path.with_suffix(".onnx"), path.with_suffix(".npz")
    np.savez(source, images=images.numpy())
    checkpoint = ltmp_export.load_checkpoint(path, _rated(stated, RATE))
    ltmp_export.export(checkpoint, output, check=False)
    report = ltmp_export.check(output, checkpoint, images=source, batch_sizes=(1, IMAGES))
    return report.verdict


def _rated(stated: Choices, rate: int) -> Choices:
    return Choices(**{**vars(stated), "rate": str(rate)})


def cases(group: Group, blocks: int, published: bool) -> Iterator[tuple[str, Case]]:
    """As most of its tags are, and with a classifier."""
    if 2 * group.headless > len(group.tags):
        yield "features", Case(group.name, 0, blocks, published)
    yield "logits", Case(group.name, CLASSES, blocks, published)


def rows(groups: Sequence[Group], blocks: int, published: bool) -> Iterator[Row]:
    """What becomes of each group, said on stderr."""
    with tempfile.TemporaryDirectory() as folder:
        for group in groups:
            row, start = Row(group), time.perf_counter()
            for form, case in cases(group, blocks, published):
                outcome = run(case, Path(folder))
                row.outcomes[form] = outcome
                said = outcome.wrong or outcome.refused
                said = (
                    f"{'WRONG' if outcome.wrong else 'refused'}: {said}"
                    if said
                    else (f"right, off by {outcome.error:.0e}")
                )
                print(f"{len(group.tags):3} {group.name} {form}: {said}", file=sys.stderr)
            if not row.right and group.missing:
                print(f"      missing: {'; '.join(group.missing)}", file=sys.stderr)
            print(f"      {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
            yield row


def document(found: Sequence[Row], seconds: float) -> str:
    """The table, with what it was made with."""
    tags = sum(len(row.group.tags) for row in found)
    right = sum(len(row.group.tags) for row in found if row.right)
    packages = ", ".join(f"{p} {version(p)}" for p in ("timm", "torch", "onnx", "onnxruntime"))
    lines = [
        f"{packages}: {len(found)} groups with {tags} pretrained tags, of which {right} "
        f"({right / tags:.1%}) are taken and right; {seconds / 60:.0f} minutes.",
        "",
        "| smallest of its group | tags | without classifier | features | logits | |",
        "|---|---|---|---|---|---|",
    ]
    for row in found:
        group, cells = row.group, [_cell(row.outcomes.get(f)) for f in ("features", "logits")]
        counted = f"| `{group.name}` | {len(group.tags)} | {group.headless} |"
        lines.append(f"{counted} {' | '.join(cells)} | {_reason(row)} |")
    return "\n".join(lines) + "\n"


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    if outcome.wrong:
        return "**wrong**"
    return "no" if outcome.refused else f"{outcome.error:.0e}, {outcome.verdict}"


def _reason(row: Row) -> str:
    wrong = [o.wrong for o in row.outcomes.values() if o.wrong]
    if row.right or wrong:
        return "; ".join(wrong)
    refused = next(o.refused for o in row.outcomes.values() if o.refused)
    return "; ".join(row.group.missing) or refused.partition("; ")[0]


def main() -> int:
    """Run what the command line names; 1 where something is wrong or too few are taken."""
    parser = argparse.ArgumentParser(prog="python -m tests.timm_groups")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="0 for all")
    parser.add_argument("--published", action="store_true", help="images as large as timm has them")
    parser.add_argument("--beside", action="store_true", help="those that are not in the count")
    parser.add_argument("--write", action="store_true", help="the table into TIMM.md")
    told = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    if told.names:
        groups = [g for name in told.names for g in offered.groups(name)]
    else:
        modules = offered.BESIDE if told.beside else offered.VITS
        pattern = "vitamin*" if told.beside else "*"
        groups = [g for g in offered.groups(pattern) if g.tags and g.module in modules]
    found = list(rows(groups, told.blocks, told.published))
    table = document(found, time.perf_counter() - start)
    print(table)
    if told.write:
        begin = BEGIN_BESIDE if told.beside else BEGIN
        before, _, rest = DOCUMENT.read_text().partition(begin)
        DOCUMENT.write_text(before + begin + table + END + rest.partition(END)[2])
    wrong = any(o.wrong for row in found for o in row.outcomes.values())
    right = sum(len(row.group.tags) for row in found if row.right)
    few = right < GOAL * sum(len(row.group.tags) for row in found)
    return int(wrong or (few and not told.names))


if __name__ == "__main__":
    sys.exit(main())
