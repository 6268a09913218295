"""What ran elsewhere, judged by its recording: `ltmp inputs`, then `ltmp check --recorded`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import ltmp_export
from ltmp_export import load_checkpoint
from ltmp_export.checkpoint.load import Checkpoint
from ltmp_export.errors import InputError
from ltmp_export.graph import interface
from ltmp_export.images import fed
from ltmp_export.images.inputs import Images
from ltmp_export.model_file.model import read_exported, to_onnx
from ltmp_export.parity import compare, taps
from ltmp_export.parity.recorded import Recorded
from ltmp_export.parity.report import CheckReport
from tests.conftest import DIGITS_LTMP
from tests.makers.commands import ltmp, refused, succeeded
from tests.makers.mutations import MUTATIONS
from tests.makers.recordings import Arrays, recorded, write

SIZES = (1, 2)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(DIGITS_LTMP)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported file that also counts its tokens."""
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    ltmp_export.export(DIGITS_LTMP, path, token_counts=True, check=False)
    return path


@pytest.fixture(scope="module")
def images(path: Path) -> Images:
    """Four of the digits, as `ltmp inputs` takes them."""
    exported = read_exported(path)
    return fed.images(None, exported.geometry, exported.preprocessing, 4, SIZES)


@pytest.fixture(scope="module")
def right(path: Path, images: Images) -> Arrays:
    """A recording of the file as it is."""
    return recorded(onnx.load(path), images, SIZES)


@pytest.fixture
def judged(path: Path, tmp_path: Path, checkpoint: Checkpoint) -> Callable[..., CheckReport]:
    """What a check says of a recording."""

    def judge(arrays: Arrays, model: Path = path) -> CheckReport:
        write(tmp_path / "recorded.npz", arrays)
        return ltmp_export.check(
            model, checkpoint, samples=4, batch_sizes=SIZES, recorded=tmp_path / "recorded.npz"
        )

    return judge


def test_outputs_alone_are_proved_and_so_called(
    judged: Callable[..., CheckReport], right: Arrays
) -> None:
    found = judged(right)
    assert (found.verdict, found.proved_at) == ("equal", "outputs")
    assert "lacks the inner tensor batch_1/0/embed/tokens and" in found.warnings[-1]
    assert len(found.comparisons) == 8
    assert {one.order for one in found.comparisons} == {"given"}
    assert found.blocks == ()
    assert found.comparisons[0].margin > 0


def test_as_a_user_types_it(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the batches that are the default, and in folders of arrays."""
    monkeypatch.chdir(tmp_path)
    told = succeeded(ltmp("inputs", path, "-o", "fed"))
    assert told.startswith("fed: images float32 [14, 3, 32, 32] (embedded digits), digest\n")
    assert "batch_1/0/logits to batch_7/1/token_counts" in told
    pixels = np.load("fed/images.npy")
    given = Images(pixels, None, ("",) * 14, "")
    arrays = recorded(onnx.load(path), given, (1, 2, 7))
    np.testing.assert_array_equal(arrays[fed.DIGEST], np.load("fed/digest.npy"))
    write(tmp_path / "recorded", arrays)
    for more in ([], ["--images", "fed"]):
        shown = ltmp("check", path, DIGITS_LTMP, "--recorded", "recorded", *more)
        assert (
            succeeded(shown)
            .splitlines()[-1]
            .endswith("in a recording, recorded: proved at outputs only")
        )


def test_inner_tensors_prove_decisions(
    judged: Callable[..., CheckReport], path: Path, images: Images, tmp_path: Path
) -> None:
    """Recorded of the copy that `ltmp inputs --tapped` writes; of some of them outputs are left."""
    tapped = tmp_path / "tapped.onnx"
    ltmp_export.inputs(path, tmp_path / "i.npz", samples=4, batch_sizes=SIZES, tapped=tapped)
    with np.load(tmp_path / "i.npz") as written:
        np.testing.assert_array_equal(written["images"], images.pixels)
    arrays = recorded(onnx.load(tapped), images, SIZES)
    found = judged(arrays)
    assert (found.verdict, found.proved_at, found.warnings) == ("equal", "decisions", ())
    assert len(found.blocks) == 12
    as_numbers = {k: v.astype(np.uint8) if v.dtype == bool else v for k, v in arrays.items()}
    assert judged(as_numbers).proved_at == "decisions"
    wrong = {k: 1.001 * v if k.endswith("block_02/similarity") else v for k, v in arrays.items()}
    assert judged(wrong).comparisons[0].where == "block 2"
    del arrays["batch_2/1/block_02/kept"]
    assert judged(arrays).proved_at == "outputs"


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("log-size bias dropped", False),
        ("importance of one head", False),
        ("rows of mlp.fc1 exchanged", False),
        ("epsilon 1e-5", True),
    ],
)
def test_a_wrong_graph_fails_as_in_onnxruntime(
    name: str,
    inner: bool,
    judged: Callable[..., CheckReport],
    checkpoint: Checkpoint,
    images: Images,
    tmp_path: Path,
) -> None:
    """The file is right, what a device made of it is not."""
    onnx.save(to_onnx(checkpoint, opset=17), tmp_path / "right.onnx")
    wrong = MUTATIONS[name].mutate(checkpoint, 3)
    if inner:
        wrong = interface.tapped(wrong, taps.names(checkpoint.plan))
    found = judged(recorded(wrong, images, SIZES), tmp_path / "right.onnx")
    assert found.verdict == "fail"
    assert found.reason == ""  # the file's own weights are right
    if inner:
        own = compare.compare(wrong, checkpoint, images, batch_sizes=SIZES)
        assert found.of("fail")[0].reason == own.of("fail")[0].reason


def test_one_image_that_is_wrong_in_a_batch_alone(
    judged: Callable[..., CheckReport], right: Arrays
) -> None:
    other = right["batch_2/1/logits"].copy()
    other[0] += 1e-3
    found = judged(right | {"batch_2/1/logits": other})
    assert [(c.number, c.batch_size) for c in found.of("fail")] == [(2, 2)]
    assert [one.verdict for one in found.invariance] == ["equal", "equal", "fail", "equal"]
    counts = right["batch_1/3/token_counts"].copy()
    counts[0, 4] -= 1
    found = judged(right | {"batch_1/3/token_counts": counts.astype(np.float32)})
    assert [c.where for c in found.of("fail")] == ["block 4"]
    assert "tokens in token_counts," in found.of("fail")[0].reason


def damage(right: Arrays) -> dict[str, tuple[Arrays, str]]:
    """Recordings that cannot be judged, and what is said."""
    logits = right["batch_1/2/logits"]
    without = {k: v for k, v in right.items() if k != "batch_2/1/logits"}
    no_digest = {k: v for k, v in right.items() if k != "digest"}
    nan = np.full_like(logits, np.nan)
    return {
        "a run": (without, r"lacks batch_2/1/logits: what .* of images 2 to 3 in one batch; batch"),
        "no digest": (no_digest, "has no digest, which tells of which images it is; copy"),
        "of others": (
            right | {"digest": np.zeros(32, np.uint8)},
            r"is of other images \(digest 000000000000…, of these .* with --images$",
        ),
        "no digest at all": (right | {"digest": np.zeros(3)}, r"digest is float64\[3\]; expected"),
        "a shape": (
            right | {"batch_1/2/logits": logits[0]}, r"has the shape \[10\]; expected \[1, 10\]$"
        ),
        "a batch": (
            right | {"batch_2/0/logits": logits}, r"has the shape \[1, 10\]; expected \[2, 10\]$"
        ),
        "NaN": (right | {"batch_1/2/logits": nan}, "batch_1/2/logits holds a NaN or an infinite"),
        "text": (right | {"batch_1/2/logits": logits.astype(str)}, "is <U.*; expected numbers"),
        "counts": (
            right | {"batch_1/2/token_counts": np.full((1, 6), 0.5)}, "that are no whole ones"
        ),
        "objects": (
            right | {"batch_1/2/logits": np.array([None])},
            "is no recording, a readable .npz: it holds no array of numbers$",
        ),
    }  # fmt: skip


@pytest.mark.parametrize("what", damage({"batch_1/2/logits": np.zeros((1, 10))}))
def test_what_cannot_be_judged(
    what: str, right: Arrays, path: Path, images: Images, tmp_path: Path
) -> None:
    arrays, message = damage(right)[what]
    write(tmp_path / "r.npz", arrays)
    exported = read_exported(path)
    with pytest.raises(InputError, match=message) as told:
        Recorded(tmp_path / "r.npz").require(exported.proto, exported.geometry, images, SIZES)
    assert "\n" not in str(told.value)


def test_what_is_no_recording(path: Path, tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "empty").mkdir()
    (tmp_path / "files").mkdir()
    (tmp_path / "files/digest.npy").write_text("no array")
    for given, message in {
        "text.npz": "is no recording, a readable .npz",
        "files": "digest cannot be read: it holds no array of numbers$",
        "empty": "holds no .npy files; expected a recording",
        "none.npz": "does not exist; expected a recording: an .npz, or a folder of .npy files",
    }.items():
        refused(ltmp("check", path, DIGITS_LTMP, "--recorded", tmp_path / given), message)
    flags = ("--recorded", tmp_path, "--save-repro", tmp_path / "r")
    refused(ltmp("check", path, DIGITS_LTMP, *flags), "judges what ran elsewhere; drop --runtime")
