"""`ltmp web`: a site from a file, whole or not at all; what no browser could run is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import ltmp_export
from ltmp_export import InputError
from ltmp_export.images import inputs
from ltmp_export.plan import faces
from ltmp_export.runtimes.session import Session
from ltmp_export.site import contents, onnxruntime_web, served
from tests.conftest import cluster_layers, load_torch
from tests.makers.commands import left, ltmp, refused, succeeded
from tests.makers.pages import Page
from tests.makers.sites import package

OWN = Path(ltmp_export.__path__[0]) / "site"
SCRIPTS = sorted(path.name for path in OWN.glob("*.js"))
NAME = '<img src=x onerror=alert(1)>&".png'


@pytest.fixture
def here(tmp_path: Path, exported: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user stands: model.onnx, node_modules/onnxruntime-web."""
    shutil.copy(exported, tmp_path / "model.onnx")
    package(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, exported: Path) -> Path:
    """A site of three digits."""
    place = tmp_path_factory.mktemp("site")
    made = ltmp_export.web(
        exported, place / "site", samples=3, onnxruntime_web=package(place), threads=1
    )
    assert sorted(made.files) == left(place / "site")
    return place / "site"


def told(site: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((site / contents.TOLD).read_text())
    return found


def digest(path: Path) -> str:
    return f"sha384-{base64.b64encode(hashlib.sha384(path.read_bytes()).digest()).decode()}"


def test_a_site_has_all_it_loads_with_its_digest(built: Path) -> None:
    found, page = told(built), Page((built / "index.html").read_bytes())
    named = [found["model"], found["dense"], found["recorded"], found["probe"]]
    named += [found["runtime"][kind]["binary"] for kind in ("wasm", "webgpu")]
    scripts = page.of("script")
    named += [{"url": one["src"], **one} for one in scripts if "integrity" in one]
    assert len(named) == 8
    assert all(one["integrity"] == digest(built / one["url"]) for one in named)
    loaded = {one["url"].removeprefix("./") for one in named}
    others = {*SCRIPTS, "site.css", "index.html", contents.TOLD}
    assert {*left(built)} == loaded | others
    assert found["runtime"]["version"] == "1.99.0"
    assert page.inside == {"script": [], "style": []}
    (policy,) = (one["content"] for one in page.of("meta") if "http-equiv" in one)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert rules["connect-src"] == rules["style-src"] == rules["worker-src"] == "'self'"


def test_what_is_recorded_is_what_the_served_file_gives(built: Path, exported: Path) -> None:
    found = told(built)
    model, original = onnx.load(built / "model.onnx"), onnx.load(exported)
    assert model.graph.node == original.graph.node
    assert model.graph.initializer == original.graph.initializer
    pixels = np.fromfile(built / "recorded.bin", np.float32).reshape(-1, 3, 32, 32)
    digits = inputs.embedded_digits().select(3)
    np.testing.assert_array_equal(pixels[:3], digits.pixels)
    names, session = [value.name for value in model.graph.output], Session(model, threads=1)
    for image, recorded in zip(digits.pixels, found["recorded"]["images"], strict=False):
        given = dict(zip(names, session.run(image[None]), strict=True))
        gap = np.abs(given["logits"][0] - recorded["values"]).max()
        assert gap <= found["recorded"]["allowed"] < 1e-2
        assert [int(given[name][0]) for name in found["counts"]] == recorded["counts"]
        assert [len(block) for block in recorded["owners"]] == [64] * 6
        assert [*given] == ["logits", *(name for name in given if "/" in name)]
    assert [one["name"] for one in found["recorded"]["images"]] == [*digits.names]


def test_the_same_site_is_made_again(built: Path, here: Path) -> None:
    site = here / "site"
    site.mkdir()
    (site / "kept.txt").write_text("mine")
    (site / "page.js").write_text("old")
    line = succeeded(
        ltmp("web", "model.onnx", "--samples", 3, "--threads", 1, "--onnxruntime-web",
             "node_modules/onnxruntime-web/dist")
    )  # fmt: skip
    assert "site: 21 files" in line
    assert "onnxruntime-web 1.99.0" in line
    assert (site / "kept.txt").read_text() == "mine"
    for name in left(built):
        assert (site / name).read_bytes() == (built / name).read_bytes(), name


def test_names_are_text(here: Path) -> None:
    (here / "photos").mkdir()
    Image.fromarray(np.tile(np.arange(90, dtype=np.uint8), (80, 1))).save(here / "photos" / NAME)
    shutil.copy("model.onnx", "<b>&.onnx")
    model = onnx.load("<b>&.onnx")
    names = ["</script><script>alert(1)</script>", *(f"{i}\u202e" for i in range(9))]
    words = {one.key: one.value for one in model.metadata_props}
    onnx.helper.set_model_props(model, words | {"label_names": json.dumps(names)})
    onnx.save(model, "<b>&.onnx")
    line = succeeded(ltmp("web", "<b>&.onnx", "--images", "photos", "--no-dense", "--threads", 1))
    assert f"{onnxruntime_web.HOST}, which the page loads from there" in line
    page = Page((here / "site/index.html").read_bytes())
    assert not page.of("b")
    assert "<b>&.onnx" in page.texts
    found = told(here / "site")
    assert found["labels"] == names
    assert [one["name"] for one in found["recorded"]["images"]] == [NAME]
    assert found["dense"] is None
    assert "dense.onnx" not in left(here / "site")


def test_from_a_cdn_the_policy_names_it_and_all_is_pinned(here: Path) -> None:
    runtime = onnxruntime_web.on_cdn()
    assert not [*runtime.copies()]
    assert all(
        file.url.startswith(f"{onnxruntime_web.HOST}/npm/onnxruntime-web@{runtime.version}/dist/")
        and re.fullmatch(r"sha384-[A-Za-z0-9+/]{64}", file.integrity)
        for pair in runtime.files.values()
        for file in pair
    )


def test_the_page_reads_the_steps_that_are_served() -> None:
    source = (OWN / "owners.js").read_text()
    written = re.findall(r"^  (\w+)\(\{.*\}, \{.*\}\) \{$", source, re.MULTILINE)
    assert sorted(written) == sorted(served.READ)
    assert {*served.READ} <= {*faces.by_name()}


def test_methods_that_mix_have_no_pictures(here: Path, digits_base: Path) -> None:
    torch.save(load_torch(digits_base) | cluster_layers(128, 24, 9), "soft.pth")
    stated = ltmp_export.Choices(
        family="patchmerger", merge_at=(2, 6), merge_scale="sqrt", num_heads=2, mean=(0.5,),
        std=(0.5,),
    )  # fmt: skip
    ltmp_export.export("soft.pth", "soft.onnx", choices=stated, check=False)
    made = ltmp_export.web("soft.onnx", samples=1, dense=False, threads=1)
    assert any("no pictures of tokens" in line for line in made.warnings)
    found = told(here / "site")
    assert found["grid"] is found["blocks"] is None
    assert found["recorded"]["images"][0]["owners"] == []
    page = (here / "site" / "index.html").read_text(encoding="utf-8")
    assert '<p class="told">no pictures of tokens: soft.onnx: family patchmerger' in page
    assert "Each region has" not in page


def test_what_no_browser_could_run_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web = ("web", "model.onnx", "--threads", "1")
    refused(
        ltmp(*web, "--onnxruntime-web", "no"), "no ort.wasm.bundle.min.mjs there or in its dist"
    )
    dist = here / "node_modules/onnxruntime-web/dist"
    binary = dist / "ort-wasm-simd-threaded.wasm"
    binary.rename("away")
    refused(ltmp(*web, "--onnxruntime-web", dist), "the binary that .* is not beside it")
    (dist / "ort.wasm.bundle.min.mjs").write_text("what")
    refused(ltmp(*web, "--onnxruntime-web", dist), "does not say that it is ONNX Runtime Web")
    refused(ltmp(*web, "-o", "."), "the site would go to .*, where model.onnx is")
    refused(ltmp(*web, "-o", "no/site"), "the folder .*no does not exist")
    refused(ltmp("web", "none.onnx"), "none.onnx does not exist")
    monkeypatch.setattr(served, "LARGEST", 1000)
    refused(ltmp(*web), "has 0.0 GB; a page holds models of up to")
    ltmp_export.export(
        inputs.fixture(inputs.DIGITS), "map.onnx", outputs=("tokens", "token_map"), check=False
    )
    refused(ltmp("web", "map.onnx"), "gives tokens, token_map; a page compares logits or features")
    assert not (here / "site").exists()


def test_nothing_is_left_half_written(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dist = here / "node_modules/onnxruntime-web/dist"
    runtime = onnxruntime_web.in_folder(dist)
    (dist / "ort-wasm-simd-threaded.wasm").write_bytes(b"another")
    monkeypatch.setattr(onnxruntime_web, "in_folder", lambda folder: runtime)
    before = left(here)
    with pytest.raises(InputError, match=r"threaded\.wasm changed while it was copied"):
        ltmp_export.web("model.onnx", samples=1, dense=False, onnxruntime_web=dist, threads=1)
    assert left(here) == before
