"""Whatever a checkpoint, a model, images or a command line hold: an answer or one line.

`pytest tests/checkpoint/test_fuzz.py` runs some 1,200 cases, the same every time.
`LTMP_FUZZ=100000 pytest tests/checkpoint/test_fuzz.py` runs so many, drawn anew; `-rP` shows how
they were shared and ended. Most go where a case takes a few milliseconds. What must hold for each
is in `makers/fuzzing.py`.
"""

from __future__ import annotations

import functools
import io
import json
import os
import resource
import signal
import tempfile
import warnings
from pathlib import Path
from typing import Any

import hypothesis.configuration
import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as save_safetensors

from ltmp_export import load_checkpoint
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.commands import export
from ltmp_export.images import inputs
from tests.makers import command_lines, nonsense, odd_models, strategies
from tests.makers.fuzzing import DEFAULT, GROWTH, Workplace, codes, largest, part, ran
from tests.makers.strategies import Blob

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no alarm to end a hang")
hypothesis.configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "hypothesis")

PARTS = 17
STATE = nonsense.vit_state()


def saved(content: Any, *, zipped: bool = True) -> Blob:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sparse tensors are in beta
        torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return Blob(buffer.getvalue())


def arrays(**content: Any) -> Blob:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **content)
    return Blob(buffer.getvalue())


def picture(kind: str) -> Blob:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (9, 11, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return Blob(buffer.getvalue())


TOP = nonsense.training_checkpoint(STATE)
THRESHOLDS = {key: value for key, value in STATE.items() if key.endswith("threshold")}
ZIP, SEQUENCE = saved(TOP), saved(TOP, zipped=False)
WEIGHTS = {key: value for key, value in STATE.items() if key not in THRESHOLDS}
SAFETENSORS = Blob(save_safetensors(STATE, {"architecture": "ltmp_tiny"}))
CONFIG: dict[str, Any] = {"architecture": "ltmp_tiny", "num_classes": 3, "global_pool": "token"}
CONFIG |= {"label_names": ["a", "b", "c"], "model_args": {"img_size": 8}}
CONFIG |= {"pretrained_cfg": {"mean": [0.5], "std": [0.5], "input_size": [1, 8, 8]}}
PIXELS = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 1, 8, 8)
NPZ = arrays(images=PIXELS, labels=np.array([0, 2]))
PICTURES = [picture(kind) for kind in ("png", "jpeg", "bmp", "webp")]


@functools.cache
def loaded() -> Checkpoint:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "c.pt")
        path.write_bytes(ZIP)
        return load_checkpoint(path)


@functools.cache
def model() -> Blob:
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder, "c.pt")).write_bytes(ZIP)
        export.export(path, Path(folder, "m.onnx"), check=False)
        return Blob(Path(folder, "m.onnx").read_bytes())


@pytest.fixture
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Workplace:
    """A folder to run in, with imports and caches warm, so that memory is a case's own."""
    made = Workplace(tmp_path / "watched", {"c.pt": ZIP, "m.onnx": model()}, request.node.name)
    monkeypatch.chdir(made.here)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for arguments in (["inspect", "c.pt"], ["export", "c.pt", "--no-check"], ["inspect", "m.onnx"]):
        assert made.ltmp(arguments, ["model.onnx"]).code == 0
    return made


archives = st.one_of(strategies.mutated(ZIP), strategies.rebuilt(ZIP), strategies.rebuilt(ZIP))
COMMANDS = (["inspect", "x"], ["inspect", "x", "--json"], ["export", "x", "--no-check"])
commands = st.sampled_from(COMMANDS)


def try_file(place: Workplace, content: bytes, command: list[str], name: str = "x") -> None:
    place.put({name: content})
    place.ltmp(command, ["model.onnx"])


@part(1400)
@given(content=archives, command=commands)
def test_zip(place: Workplace, content: bytes, command: list[str]) -> None:
    try_file(place, content, command)


@part(700)
@given(stream=st.one_of(strategies.streams, strategies.nested()), command=commands)
def test_pickle(place: Workplace, stream: bytes, command: list[str]) -> None:
    entries = [("x/data.pkl", stream), ("x/data/0", bytes(64)), ("x/data/1", bytes(8))]
    try_file(place, strategies.zipped(entries), command)


OTHERS = (SEQUENCE, SAFETENSORS, saved(THRESHOLDS), saved(STATE, zipped=False))


@part(888)
@given(
    content=st.sampled_from(OTHERS).flatmap(lambda blob: strategies.mutated(blob, [(0, 2000)])),
    command=commands,
)
def test_other_files(place: Workplace, content: bytes, command: list[str]) -> None:
    try_file(place, content, command)


@part(300)
@given(config=nonsense.json_texts(CONFIG), whole=st.booleans())
def test_hugging_face(place: Workplace, config: bytes, whole: bool) -> None:
    weights = SAFETENSORS if whole else save_safetensors(STATE)
    place.put({"hf/config.json": config, "hf/model.safetensors": weights})
    place.ltmp(["inspect", "hf"])


@part(450)
@given(content=nonsense.checkpoints(STATE), command=commands)
def test_state_dict(place: Workplace, content: Any, command: list[str]) -> None:
    try_file(place, saved(content), command)


@part(120)
@given(content=nonsense.marked(STATE), stream=strategies.planted, command=commands)
def test_planted(place: Workplace, content: Any, stream: bytes, command: list[str]) -> None:
    try_file(place, strategies.plant(saved(content), stream), command)


@part(12)
@given(stream=strategies.bombs, command=commands)
def test_bombs(place: Workplace, stream: bytes, command: list[str]) -> None:
    try_file(place, strategies.zipped([("x/data.pkl", stream + b".")]), command)


def test_records_that_unpack_to_more_than_they_say(place: Workplace) -> None:
    size = 2 * GROWTH << 20
    try_file(place, strategies.unpacking_to(size, "x/data.pkl", claimed=1000), COMMANDS[0])
    try_file(place, strategies.unpacking_to(size, "x/data.pkl"), COMMANDS[0])
    header = b"\x93NUMPY\x02\x00" + size.to_bytes(4, "little")
    place.put({"i.npz": strategies.unpacking_to(size, "images.npy", header)})
    place.ltmp(["check", "m.onnx", "c.pt", "--images", "i.npz", "--samples", "1"])


@part(90)
@given(geometry=nonsense.geometries(), size=nonsense.image_sizes, command=commands)
def test_geometry(
    place: Workplace, geometry: dict[str, Any], size: Any, command: list[str]
) -> None:
    content = nonsense.training_checkpoint(nonsense.vit_state(**geometry))
    listed = isinstance(size, (tuple, list)) and len(size) == 3
    setattr(content["args"], "input_size" if listed else "img_size", size)
    try_file(place, saved(content), command)


UNIT = st.one_of(st.sampled_from((0.0, 1.0, 1e-45, 1 - 2**-24, 0.5)), st.floats(0, 1, width=32))
OUTSIDE = st.sampled_from((-1e-45, 1 + 2**-23, float("nan"), float("inf"), -1.0, 1e30))


@part(70)
@given(
    chosen=st.lists(UNIT, min_size=4, max_size=4),
    wrong=st.one_of(st.none(), st.none(), st.tuples(st.integers(0, 3), OUTSIDE)),
)
def test_thresholds(place: Workplace, chosen: list[float], wrong: tuple[int, float] | None) -> None:
    values = list(chosen)
    if wrong is not None:
        values[wrong[0]] = wrong[1]
    state = STATE | {
        key: torch.tensor([value]) for key, value in zip(THRESHOLDS, values, strict=True)
    }
    place.put({"t.pt": saved(nonsense.training_checkpoint(state))})

    def export_and_run() -> None:
        exported = io.BytesIO()
        checkpoint = load_checkpoint(place.here / "t.pt")
        with tempfile.TemporaryDirectory() as folder:
            export.export(checkpoint, Path(folder, "m.onnx"), check=False)
            exported.write(Path(folder, "m.onnx").read_bytes())
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(exported.getvalue(), options)
        (logits,) = session.run(["logits"], {"images": PIXELS})
        assert np.isfinite(logits).all()

    outcome = place.call(export_and_run)
    assert outcome.code == (0 if wrong is None else 2), outcome


models = st.one_of(
    st.deferred(lambda: strategies.mutated(model())),
    st.deferred(lambda: odd_models.changed(model())),
)


@part(700)
@given(content=models)
def test_model(place: Workplace, content: bytes) -> None:
    place.put({"x.onnx": content})
    place.ltmp(["inspect", "x.onnx"])


@part(60)
@given(content=st.deferred(lambda: odd_models.reworded(model())))
def test_checked_model(place: Workplace, content: bytes) -> None:
    """Words only: its graph is sound, and is run."""
    place.put({"x.onnx": content})
    place.ltmp(["check", "x.onnx", "c.pt", "--samples", "1", "--batch-size", "1"])


@part(200)
@given(content=nonsense.json_texts(nonsense.REPRO))
def test_repro(place: Workplace, content: bytes) -> None:
    place.put({"repro/repro.json": content})
    place.ltmp(["check", "--repro", "repro", "missing.onnx"])


@part(200)
@given(content=nonsense.json_texts(nonsense.REPORT))
def test_earlier_report(place: Workplace, content: bytes) -> None:
    place.put({"old.json": content})
    place.ltmp(["bench", "missing.onnx", "--compare", "old.json"])


@part(500)
@given(content=st.one_of(strategies.mutated(NPZ), odd_models.archives()))
def test_arrays(place: Workplace, content: bytes) -> None:
    place.put({"i.npz": content})
    vit, preprocessing = loaded().vit, loaded().preprocessing
    place.call(lambda: inputs.load_images(place.here / "i.npz", vit, preprocessing))


@part(300)
@given(content=st.sampled_from(PICTURES).flatmap(strategies.mutated))
def test_pictures(place: Workplace, content: bytes) -> None:
    place.put({"pictures/x.png": content})
    vit, preprocessing = loaded().vit, loaded().preprocessing
    place.call(lambda: inputs.load_images(place.here / "pictures", vit, preprocessing))


@part(800)
@given(line=command_lines.command_lines())
def test_command_line(place: Workplace, line: command_lines.CommandLine) -> None:
    if "i.npz" not in place.files:
        thresholds = {"arch": "ltmp_tiny", "state_dict": THRESHOLDS}
        place.put({"t.pt": saved(thresholds), "base.pt": saved(WEIGHTS), "i.npz": NPZ})
        place.put({"dir/readme": b"text"})
    place.ltmp(line.arguments, line.outputs)


def test_figures() -> None:
    """After all others: how many there were, how they ended, what they took."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    for counter in (ran, codes, largest):
        print(json.dumps(counter, indent=1, sort_keys=True))
    print(f"{sum(ran.values())} cases, process peak {peak} MiB, {os.getpid()}")
    if len(ran) == PARTS:
        assert sum(ran.values()) >= DEFAULT
    assert max(largest.values(), default=0) <= GROWTH
