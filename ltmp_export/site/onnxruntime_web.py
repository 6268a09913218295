"""onnxruntime-web: the files that a site needs of it, from a folder or named on a CDN.

For each of wasm and WebGPU these are two: a script, and the binary that it loads. They are pinned
by digest either way, so that a browser runs these bytes or none.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ltmp_export.errors import InputError
from ltmp_export.files import disk

WASM, WEBGPU = "wasm", "webgpu"
SCRIPTS = {WASM: "ort.wasm.bundle.min.mjs", WEBGPU: "ort.webgpu.bundle.min.mjs"}
VERSION = "1.30.0"  # where no folder is given
HOST = "https://cdn.jsdelivr.net"
_CDN = f"{HOST}/npm/onnxruntime-web@{VERSION}/dist/"
_PINNED = {  # of the files as npm has them in this version
    WASM: (
        ("ort.wasm.bundle.min.mjs",
         "PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG"),
        ("ort-wasm-simd-threaded.wasm",
         "vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM"),
    ),
    WEBGPU: (
        ("ort.webgpu.bundle.min.mjs",
         "1ntMeyj+z5diX6vBR5h+zlJBPc4iNvhCxE6nlammh8daBYcLBZkzrwDkuJjhwI+f"),
        ("ort-wasm-simd-threaded.asyncify.wasm",
         "EPVDLTxuO663dkZO/pcKJF6vOyyfq/5z9FY1oksN0UWFX2ABH4wDDZQHeNoUleWR"),
    ),
}  # fmt: skip
_VERSION = re.compile(rb"ONNX Runtime Web v([0-9A-Za-z.+-]{1,60})\s")
_BINARY = re.compile(rb"ort-wasm-simd-threaded(?:\.[a-z]+)?\.wasm")
_HEAD = 400  # bytes of a script in which it says what it is


@dataclass(frozen=True)
class File:
    """One file of it.

    Attributes:
        url: Where a page finds it.
        integrity: Its digest, as browsers check it.
        source: Where it is copied from; None on a CDN.
    """

    url: str
    integrity: str
    source: Path | None = None


@dataclass(frozen=True)
class Runtime:
    """What a site runs models in.

    Attributes:
        version: Of onnxruntime-web.
        files: By provider the script and the binary; wasm at least.
        host: The other host that a page loads it from; None where the site has it.
    """

    version: str
    files: Mapping[str, tuple[File, File]]
    host: str | None = None

    @property
    def told(self) -> str:
        """Where it is from, for a person."""
        return f"onnxruntime-web {self.version}" + (
            "" if self.host is None else f", from {self.host}"
        )

    def copies(self) -> Iterator[tuple[str, bytes]]:
        """Names and contents of what the site has of it.

        Raises:
            InputError: A file cannot be read, or changed meanwhile.
        """
        for file in (one for pair in self.files.values() for one in pair):
            if file.source is not None:
                content = _read(file.source)
                if integrity(content) != file.integrity:
                    raise InputError(f"{file.source} changed while it was copied; try again")
                yield file.url.removeprefix("./"), content


def integrity(content: bytes) -> str:
    """A digest, as browsers check it."""
    return f"sha384-{base64.b64encode(hashlib.sha384(content).digest()).decode()}"


def on_cdn() -> Runtime:
    """A pinned version on a public host."""
    files = {
        provider: (
            File(f"{_CDN}{script[0]}", f"sha384-{script[1]}"),
            File(f"{_CDN}{binary[0]}", f"sha384-{binary[1]}"),
        )
        for provider, (script, binary) in _PINNED.items()
    }
    return Runtime(VERSION, files, HOST)


def in_folder(folder: Path) -> Runtime:
    """What a folder has: onnxruntime-web as npm installs it, or its `dist`.

    Raises:
        InputError: It has not what is needed for wasm.
    """
    places = [place for place in (folder, folder / "dist") if (place / SCRIPTS[WASM]).is_file()]
    if not places:
        raise InputError(
            f"--onnxruntime-web {folder}: no {SCRIPTS[WASM]} there or in its dist; give the folder "
            "of the npm package (npm install onnxruntime-web: node_modules/onnxruntime-web)"
        )
    place = places[0]
    head = _read(place / SCRIPTS[WASM])[:_HEAD]
    version = _VERSION.search(head)
    if version is None:
        raise InputError(
            f"--onnxruntime-web {folder}: {SCRIPTS[WASM]} does not say that it is ONNX Runtime Web"
        )
    files = {provider: pair for provider in SCRIPTS if (pair := _pair(place, provider)) is not None}
    if WASM not in files:
        raise InputError(
            f"--onnxruntime-web {folder}: the binary that {SCRIPTS[WASM]} loads "
            "(ort-wasm-simd-threaded.wasm) is not beside it; give the whole package"
        )
    return Runtime(version[1].decode(), files)


def _pair(place: Path, provider: str) -> tuple[File, File] | None:
    """The script and its binary, if both are there."""
    script = place / SCRIPTS[provider]
    if not script.is_file():
        return None
    content = _read(script)
    named = sorted({name.decode() for name in _BINARY.findall(content)})
    found = [place / name for name in named if (place / name).is_file()]
    if not found:
        return None
    # Not every server knows what kind of file an .mjs is; all know .js.
    url = f"./{script.with_suffix('.js').name}"
    binary = File(f"./{found[0].name}", integrity(_read(found[0])), found[0])
    return File(url, integrity(content), script), binary


def _read(path: Path) -> bytes:
    """The content of a file of the folder.

    Raises:
        InputError: It cannot be read.
    """
    disk.require_file(path, "a file of onnxruntime-web")
    try:
        return path.read_bytes()
    except OSError as err:
        raise InputError(f"{path} cannot be read ({err.strerror})") from err
