"""Scripts of a site on their own: pixels as Pillow and timm make them, owners of all methods."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import ltmp_export
from ltmp_export.drawing import colours
from ltmp_export.drawing.owned import Owners
from ltmp_export.images import pictures, resampling
from ltmp_export.images.preprocessing import CROP_MODES, INTERPOLATIONS, Preprocessing
from ltmp_export.plan.vit import Vit
from ltmp_export.runtimes.session import Session
from ltmp_export.site import probe
from ltmp_export.site.served import served
from tests.backbones.test_outputs import given, model, plans
from tests.drawing.test_owned import FORMS, file
from tests.makers.browsing import Watched
from tests.makers.hosts import serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

OWN = Path(ltmp_export.__path__[0]) / "site"
PREPARE = """async ([files, rules]) => {
  const { read, prepared } = await import("./prepare.js");
  const found = [];
  for (const [kind, content] of files) {
    const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
    const picture = await read(new Blob([bytes], { type: `image/${kind}` }));
    for (const rule of rules) found.push(prepared(picture, rule));
  }
  const all = new Uint8Array(await new Blob(found).arrayBuffer());
  const parts = [];
  for (let at = 0; at < all.length; at += 30000) {
    parts.push(String.fromCharCode(...all.subarray(at, at + 30000)));
  }
  return btoa(parts.join(""));
}"""
OWNERS = """async (all) => {
  const { owners } = await import("./owners.js");
  const { looked, hues } = await import("./tokens.js");
  return all.map(({ site, tensors }) => {
    const blocks = owners(site, tensors);
    const known = blocks.map(looked);
    return { blocks, known, hues: hues(known, site.grid) };
  });
}"""


@pytest.fixture
def page(watched: Watched, tmp_path: Path) -> Iterator[Page]:
    """A page with the scripts beside it."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    for script in OWN.glob("*.js"):
        (folder / script.name).symlink_to(script)
    (folder / "index.html").write_text(
        "<!DOCTYPE html><html lang=en><title>scripts</title><link rel=icon href=data:,>"
    )
    with serving(folder) as address:
        yield watched.open(address + "index.html")


def encoded(shown: Image.Image, kind: str, **options: Any) -> tuple[str, str]:
    written = io.BytesIO()
    shown.save(written, format=kind, **options)
    return kind, base64.b64encode(written.getvalue()).decode()


def wanted(
    vit: Vit, file: tuple[str, str], rule: Preprocessing, folder: Path
) -> NDArray[np.float32]:
    """What the tool makes of a file."""
    path = folder / f"x.{file[0]}"
    path.write_bytes(base64.b64decode(file[1]))
    transform = pictures.evaluation_transform(vit, rule)
    return pictures.read(path, pictures.mode(vit), transform).numpy()


def rules() -> Iterator[Preprocessing]:
    usual = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875, "bicubic")
    yield from (replace(usual, interpolation=one) for one in INTERPOLATIONS)
    yield from (replace(usual, crop_mode=one, crop_pct=0.9) for one in CROP_MODES)
    yield replace(usual, crop_pct=1.3)  # what is beyond the picture is black


def compared(
    page: Page, folder: Path, files: list[tuple[str, str]], vit: Vit, kinds: list[Preprocessing]
) -> list[NDArray[np.float32]]:
    """By file, then rule, how many of 255 levels each value is from the tool's own."""
    more = {"size": vit.image_size, "tall": resampling.height_first()}
    told = [asdict(rule) | more for rule in kinds]
    own = [(wanted(vit, one, rule, folder), rule) for one in files for rule in kinds]
    content = base64.b64decode(page.evaluate(PREPARE, [files, told]))
    found = np.frombuffer(content, np.float32).reshape(len(own), *own[0][0].shape)
    gaps = []
    for (expected, rule), mine in zip(own, found, strict=True):
        levels = np.abs(mine - expected) * np.reshape(rule.std, (-1, 1, 1)) * 255
        gaps.append(np.where(mine == expected, 0, levels))
    return gaps


def test_pictures_become_the_very_inputs_that_the_tool_makes(page: Page, tmp_path: Path) -> None:
    """Larger and smaller than the input, upright and not; grey; as PNG, BMP and lossless WebP."""
    shown, vit = probe.picture(), model()[1]
    small, tall = shown.resize((37, 21)), shown.rotate(90, expand=True).resize((101, 230))
    files = [encoded(one, "png") for one in (shown, small, tall, small.convert("L"))]
    files += [encoded(tall.convert("P"), "png"), encoded(tall, "bmp")]
    files.append(encoded(tall, "webp", lossless=True, exact=True))
    square, wide = (replace(vit, image_size=size) for size in ((48, 48), (32, 56)))
    for gap in compared(page, tmp_path, files, square, [*rules()]):
        assert not gap.any()
    for gap in compared(page, tmp_path, files[:3], wide, [*rules()][5:]):
        assert not gap.any()
    grey = [replace(one, mean=(0.5,), std=(0.25,)) for one in [*rules()][4:8]]
    for gap in compared(page, tmp_path, files[:4], replace(square, in_chans=1), grey):
        assert not gap.any()


def test_what_browsers_decode_themselves_is_within_levels(page: Page, tmp_path: Path) -> None:
    """JPEG, turned as EXIF says; what is half transparent, on white."""
    shown, vit = probe.picture(), replace(model()[1], image_size=(48, 48))
    turned = Image.Exif()
    turned[0x0112] = 6
    clear = shown.copy()
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    files = [encoded(shown, "jpeg", quality=90), encoded(shown, "jpeg", quality=75, exif=turned)]
    files.append(encoded(clear, "png"))
    for gap in compared(page, tmp_path, files, vit, [*rules()][2:3]):
        assert gap.max() <= 2.5
        assert gap.mean() <= 0.5


def test_owners_of_all_methods(page: Page, tmp_path: Path) -> None:
    """As `ltmp show` reads them from the same files, with the colours that it gives."""
    asked, expected = [], []
    for family, form in [*FORMS, ("pmvit", "static")]:
        plan = plans(family)[form]
        exported = file(tmp_path, plan, batch_size=None if plan.static else 1)
        owners, copy = Owners(exported, threads=1), served(exported)
        if copy.blocks is None:  # said where the site is made
            assert re.search(r"a page does not read the step \w+$", copy.remarks[-1])
            continue
        names, session = [v.name for v in copy.model.graph.output], Session(copy.model, threads=1)
        geometry = exported.geometry
        site = {
            "blocks": copy.blocks, "front": geometry.prefix, "tokens": geometry.tokens,
            "depth": geometry.depth, "grid": owners.grid,
        }  # fmt: skip
        for pixels in given().pixels[:2]:
            outputs = dict(zip(names, session.run(pixels[None]), strict=True))
            plain = {k: array.ravel().astype(float).tolist() for k, array in outputs.items()}
            asked.append({"site": site, "tensors": plain})
            expected.append(owners.of(pixels))
    found = page.evaluate(OWNERS, asked)
    assert len(found) > 20
    for one, blocks in zip(found, expected, strict=True):
        for owned, mine, known in zip(blocks, one["blocks"], one["known"], strict=True):
            assert owned.places.tolist() == mine["places"]
            assert owned.before.tolist() == mine["before"]
            assert owned.tokens == mine["tokens"]
            assert owned.merged_here.tolist() == known["mergedHere"]
            assert owned.pruned_here.tolist() == known["prunedHere"]
        assert [hues.tolist() for hues in colours.of(blocks)] == one["hues"]
