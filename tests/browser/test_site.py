"""`ltmp web` in a browser: numbers, tokens and words of a site, as the tool has them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import ltmp_export
from ltmp_export.drawing.owned import Owners
from ltmp_export.images import inputs
from ltmp_export.model_file.model import read_exported
from ltmp_export.precision.formats import FP16, INT8, Precision
from ltmp_export.site import onnxruntime_web as packages
from ltmp_export.site import recorded
from tests.browser.conftest import missing
from tests.conftest import DIGITS_LTMP
from tests.makers.browsing import SECONDS, Watched
from tests.makers.hosts import serving
from tests.makers.shallow import write_shallow

if TYPE_CHECKING:
    from playwright.sync_api import Page

READY = re.compile("^Ready")
IMAGES = 10
KINDS: dict[str, dict[str, Any]] = {
    "dynamic": {},
    "int8": {"precision": Precision(INT8)},
    "single, fp16, features": {
        "precision": Precision(FP16, io=FP16), "outputs": ("features", "token_map"),
        "batch_size": 1,
    },
}  # fmt: skip
RUN = """async () => {
  const { Place, fetched } = await import("./run.js");
  const { owners } = await import("./owners.js");
  const site = await (await fetch("site.json")).json();
  const model = await new Place(site, "wasm").model("model");
  const all = new Float32Array(await fetched(site.recorded));
  const size = site.model.shape.reduce((a, b) => a * b);
  const found = [];
  for (let at = 0; at < site.recorded.images.length; at++) {
    const given = await model.run(all.subarray(at * size, (at + 1) * size));
    found.push({ values: given[site.answer], owners: owners(site, given) });
  }
  return found;
}"""


@pytest.fixture(autouse=True, scope="module")
def _recorded_quickly() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded, "NUDGES", 2)
        yield


@pytest.fixture(scope="module")
def runtime(onnxruntime_web: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What wasm needs of the package."""
    folder = tmp_path_factory.mktemp("runtime")
    for name in (packages.SCRIPTS[packages.WASM], "ort-wasm-simd-threaded.wasm"):
        if not (onnxruntime_web / name).is_file():
            missing(f"{onnxruntime_web} has no {name}")
        (folder / name).symlink_to(onnxruntime_web / name)
    return folder


def exported(folder: Path, base: Path, kind: str) -> Path:
    """The digits in a file of a kind; static ones of family m."""
    path = folder / "<b>&.onnx"
    if kind == "m":
        choices = ltmp_export.Choices(family="m", rate="8", num_heads=2, mean=(0.5,), std=(0.5,))
        ltmp_export.export(base, path, choices=choices, check=False)
    else:
        write_shallow(DIGITS_LTMP, folder / "c.pth.tar")
        ltmp_export.export(folder / "c.pth.tar", path, check=False, **KINDS[kind])
    return path


def steady(
    owners: Owners, pixels: NDArray[np.float32], count: int, nudges: int
) -> NDArray[np.float32]:
    """The first images about which rounding decides nothing, so that any processor may agree."""

    def places(image: NDArray[np.float32]) -> list[list[int]]:
        return [owned.places.tolist() for owned in owners.of(image)]

    found = []
    for image in pixels:
        noise = (np.random.default_rng(one).uniform(-1, 1, image.shape) for one in range(nudges))
        nudged = ((image * (1 + 1e-6 * one)).astype(np.float32) for one in noise)
        own = places(image)
        if all(places(other) == own for other in nudged):
            found.append(image)
        if len(found) == count:
            return np.stack(found)
    raise AssertionError(f"{len(found)} of {len(pixels)} images")


def expecting() -> Any:
    """What waits for a page, as long as a busy machine needs."""
    from playwright.sync_api import expect

    expect.set_options(timeout=1000 * SECONDS)
    return expect


def ready(watched: Watched, address: str, **options: Any) -> Page:
    """The page of a site that has compared what was recorded."""
    expect = expecting()
    page = watched.open(address, **options)
    expect(page.locator("#state")).to_have_text(READY)
    return page


@pytest.mark.parametrize("kind", ["m", *KINDS])
def test_the_same_as_onnxruntime(
    watched: Watched, runtime: Path, tmp_path: Path, digits_base: Path, kind: str
) -> None:
    path = exported(tmp_path, digits_base, kind)
    owners = Owners(read_exported(path), threads=1)
    nudges = 6 if kind == "int8" else 1  # there, a rounding is a step of 1/127
    pixels = steady(owners, inputs.embedded_digits().pixels, IMAGES, nudges)
    np.savez(tmp_path / "i.npz", images=pixels)
    made = ltmp_export.web(
        path, tmp_path / "site", images=tmp_path / "i.npz", onnxruntime_web=runtime, dense=False,
        threads=1,
    )  # fmt: skip
    with serving(tmp_path / "site") as address:
        page = ready(watched, address)
        assert page.inner_text("h1") == "<b>&.onnx"
        told = page.locator("#parity.verdict:not(.doubt)").inner_text()
        assert re.match(rf"Equal to onnxruntime [\d.]+ on {IMAGES} images: token counts", told)
        exactly = page.locator("#prepared.verdict:not(.doubt)").inner_text()
        assert exactly == "A test picture is prepared exactly as by ltmp (3072 values)."
        found = page.evaluate(RUN)
    for image, one in zip(pixels, found, strict=True):
        given = owners.run(image)
        answer = given["features" if "features" in kind else "logits"][0]
        assert np.abs(answer - one["values"]).max() <= made.allowed
        assert answer.argmax() == np.argmax(one["values"])
        for owned, other in zip(owners.read(given), one["owners"], strict=True):
            assert owned.places.tolist() == other["places"]
            assert owned.before.tolist() == other["before"]
            assert (owned.block, owned.tokens) == (other["block"], other["tokens"])


@pytest.fixture(scope="module")
def site(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of four digits, with the dense model."""
    folder = tmp_path_factory.mktemp("site")
    ltmp_export.export(inputs.fixture(inputs.DIGITS), folder / "model.onnx", check=False)
    ltmp_export.web(
        folder / "model.onnx", folder / "site", samples=4, onnxruntime_web=runtime, threads=1
    )
    return folder / "site"


def test_pictures_are_shown_and_timed_by_keyboard(
    watched: Watched, site: Path, tmp_path: Path, axe: Callable[[Page], list[str]]
) -> None:
    expect = expecting()
    name = '<img src=x onerror="alert(1)">&.png'
    shown = inputs.embedded_digits().pixels[0].transpose(1, 2, 0) * 127.5 + 127.5
    Image.fromarray(shown.round().astype(np.uint8)).resize((61, 47)).save(tmp_path / name)
    (tmp_path / "no.png").write_text("no picture")
    (tmp_path / "no.txt").write_text("no picture")
    with serving(site) as address:
        page = ready(watched, address, viewport={"width": 320, "height": 700})
        files = [tmp_path / one for one in (name, "no.png", "no.txt")]
        page.set_input_files("#files", files)
        cards = page.locator("#cards figure")
        expect(cards).to_have_count(3)
        expect(cards.nth(0)).to_contain_text(
            "no.txt\ntext/plain; expected PNG", use_inner_text=True
        )
        expect(cards.nth(1)).to_contain_text("the browser cannot read it as a picture")
        card = cards.nth(2)
        assert card.locator("figcaption").inner_text() == name
        assert page.locator("#cards img").count() == 0
        slider = card.get_by_label("Block: ")
        slider.focus()
        for key, words in (("Home", "What the model saw"), ("ArrowRight", "Block 0: ")):
            slider.press(key)
            expect(card.locator(".caption")).to_contain_text(words)
            assert (
                words.lower() in (card.locator("canvas").get_attribute("aria-label") or "").lower()
            )
        assert card.locator("tbody tr").count() == 5
        page.locator("#recorded button").nth(1).press("Enter")
        expect(cards.first.locator("figcaption")).to_have_text("digit 16 (a 6)")
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        assert axe(page) == []
        page.evaluate("() => { const now = performance.now.bind(performance);"
                      " performance.now = () => 40 * now(); }")  # fmt: skip
        page.locator("#measure").press("Enter")
        times = page.locator("#times li")
        expect(times).to_have_text(re.compile(
            r"^Reduced [\d.]+ ms, dense [\d.]+ ms: [\d.]+x\. Medians of \d+ rounds over 2 images; "
            r"onnxruntime-web [\d.]+, wasm, 1 thread\.$"
        ))  # fmt: skip


def test_what_differs_is_told(watched: Watched, site: Path, tmp_path: Path) -> None:
    other = tmp_path / "site"
    shutil.copytree(site, other)
    told = json.loads((other / "site.json").read_text())
    images = told["recorded"]["images"]
    images[0]["counts"][2] += 1
    images[1]["owners"][3][5] = -1
    images[2]["values"][0] += 0.01
    for at in (0, 1, 2):
        images[at]["borderline"] = False
    (other / "site.json").write_text(json.dumps(told))
    with serving(other) as address:
        page = ready(watched, address)
        parity = page.locator("#parity.verdict.doubt")
        assert parity.inner_text().startswith("NOT equal to onnxruntime")
        assert re.search(r"on 3 of 4 images\.", parity.inner_text())
        lines = parity.locator("li").all_inner_texts()
        assert ["tokens " in lines[0], "behind block 3" in lines[1], "allowed" in lines[2]] == [
            True
        ] * 3


def test_a_file_of_other_bytes_does_not_run(watched: Watched, site: Path, tmp_path: Path) -> None:
    expect = expecting()
    other = tmp_path / "site"
    shutil.copytree(site, other)
    with (other / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with serving(other) as address:
        page = watched.open(address)
        expect(page.locator("#state.doubt")).to_contain_text("is not the file that this site")
        assert page.locator("#parity").inner_text() == "Not compared yet."
    assert all("integrity" in line for line in watched.errors)
    watched.errors.clear()


def test_from_a_cdn_only_pinned_bytes_run(
    watched: Watched, onnxruntime_web: Path, tmp_path: Path, site: Path
) -> None:
    """The host is played by the test, from the package's own files."""
    expect = expecting()
    if not (onnxruntime_web / packages.SCRIPTS[packages.WEBGPU]).is_file():
        missing(f"{onnxruntime_web} is not whole")
    ltmp_export.web(
        site.parent / "model.onnx", tmp_path / "site", samples=1, dense=False, threads=1
    )
    with serving(tmp_path / "site", policy="base-uri 'none'") as address:
        page = watched.open("about:blank")
        wrong: list[bytes] = []

        def answer(route: Any) -> None:
            name = route.request.url.rpartition("/")[2]
            body = wrong[0] if wrong else (onnxruntime_web / name).read_bytes()
            headers = {"access-control-allow-origin": "*", "content-type": "text/javascript"}
            route.fulfill(body=body, headers=headers)

        page.context.route(f"{packages.HOST}/**", answer)
        page.goto(address)
        expect(page.locator("#state")).to_have_text(READY)
        asked = {one.rpartition("@")[2] for one in watched.requests if packages.HOST in one}
        assert asked == {
            f"{packages.VERSION}/dist/{name}"
            for name in (*packages.SCRIPTS.values(), "ort-wasm-simd-threaded.wasm")
        }
        wrong.append(b"//")
        page.reload()
        expect(page.locator("#state.doubt")).to_contain_text("cannot be loaded")
    watched.requests.clear()
    watched.errors.clear()


def test_opened_from_a_disk_the_page_says_what_to_do(watched: Watched, site: Path) -> None:
    page = watched.open(site / "index.html")
    assert "python -m http.server -d" in page.inner_text("#state")
    watched.errors.clear()
    watched.requests.clear()
