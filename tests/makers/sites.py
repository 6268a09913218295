"""What stands for onnxruntime-web where nothing runs it."""

from __future__ import annotations

from pathlib import Path


def package(folder: Path, version: str = "1.99.0", *, webgpu: bool = True) -> Path:
    """A folder as npm installs it, with nothing that works."""
    place = folder / "node_modules" / "onnxruntime-web"
    (place / "dist").mkdir(parents=True)
    for kind, binary in (("wasm", ""), ("webgpu", ".asyncify")):
        if kind == "webgpu" and not webgpu:
            continue
        name = f"ort-wasm-simd-threaded{binary}.wasm"
        script = f"/*!\n * ONNX Runtime Web v{version}\n */\nload('{name}')"
        (place / "dist" / f"ort.{kind}.bundle.min.mjs").write_text(script)
        (place / "dist" / name).write_bytes(b"\0asm" + kind.encode())
    return place
