"""Images: given as files, embedded, or made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltmp_export.errors import InputError
from ltmp_export.images import inputs
from ltmp_export.images.preprocessing import Preprocessing
from ltmp_export.plan.vit import Vit

HALF = Preprocessing((0.5,) * 3, (0.5,) * 3, 1.0, "bilinear")


def vit(height: int = 32, width: int = 32, channels: int = 3) -> Vit:
    return Vit(
        "vit", (height, width), (4, 4), channels, 10, 1, 64, 64, 1, 64, 1e-6, "gelu", "token"
    )


def test_embedded_digits_where_the_geometry_is_theirs() -> None:
    digits = inputs.load_images(None, vit(), HALF)
    assert digits.pixels.shape == (48, 3, 32, 32)
    assert digits.labels is not None
    assert len(digits.names) == 48
    assert digits.pixels.min() == -1.0
    assert digits.pixels.max() == 1.0


def test_synthetic_pictures_where_it_is_not() -> None:
    made = inputs.load_images(None, vit(24, 40), HALF, 5)
    again = inputs.load_images(None, vit(24, 40), HALF, 5)
    assert made.pixels.shape == (5, 3, 24, 40)
    assert made.pixels.dtype == np.float32
    np.testing.assert_array_equal(made.pixels, again.pixels)
    neighbours = np.corrcoef(made.pixels[..., 1:].ravel(), made.pixels[..., :-1].ravel())[0, 1]
    assert neighbours > 0.8  # structure: white noise has 0


def test_samples_are_spread_evenly() -> None:
    few = inputs.load_images(None, vit(), HALF, 3)
    assert few.names == tuple(inputs.embedded_digits().names[i] for i in (0, 24, 47))
    assert few.labels is not None
    assert few.labels.shape == (3,)
    with pytest.raises(InputError, match="at least 1"):
        inputs.load_images(None, vit(), HALF, 0)


@pytest.mark.parametrize("shape", [(5, 32, 32), (5, 1, 32, 32), (5, 3, 32, 32), (5, 32, 32, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_npz_layouts(tmp_path: Path, shape: tuple[int, ...], dtype: type) -> None:
    raw = np.random.default_rng(0).integers(0, 256, shape)
    np.savez(tmp_path / "a.npz", images=raw.astype(dtype), labels=np.arange(5))
    found = inputs.load_images(tmp_path / "a.npz", vit(), HALF)
    plain = raw[:, None] if raw.ndim == 3 else raw
    plain = plain.transpose(0, 3, 1, 2) if plain.shape[-1] == 3 else plain
    expected = plain / 127.5 - 1 if dtype is np.uint8 else plain
    np.testing.assert_allclose(
        found.pixels, np.broadcast_to(expected, (5, 3, 32, 32)), rtol=1e-6, atol=1e-6
    )
    np.testing.assert_array_equal(found.labels, np.arange(5))


BAD_ARRAYS = {
    "no images": ({"pictures": np.zeros((2, 3, 32, 32))}, "no array 'images' .found: pictures"),
    "other size": ({"images": np.zeros((2, 3, 16, 16))}, r"expected \[n, 3, 32, 32\]"),
    "none": ({"images": np.zeros((0, 3, 32, 32))}, "n > 0"),
    "integers": ({"images": np.zeros((2, 3, 32, 32), np.int32)}, "expected uint8"),
    "objects": ({"images": np.array([{}, {}])}, "readable .npz"),
    "NaN": ({"images": np.full((2, 3, 32, 32), np.nan)}, r"images\[0\] holds NaN"),
    "label range": ({"images": np.zeros((2, 3, 32, 32)), "labels": np.array([3, 10])}, "0 to 9"),
    "labels": ({"images": np.zeros((2, 3, 32, 32)), "labels": np.arange(3)}, "labels int64"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_bad_npz(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        inputs.load_images(tmp_path / "a.npz", vit(), HALF)


def test_not_an_npz(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_text("no archive")
    with pytest.raises(InputError, match="readable .npz"):
        inputs.load_images(tmp_path / "a.npz", vit(), HALF)


def test_folder_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (50, 40), (255, 0, 0)).save(tmp_path / "sub" / "red.png")
    Image.new("L", (40, 60), 0).save(tmp_path / "black.JPG")
    (tmp_path / "notes.txt").write_text("no picture")
    found = inputs.load_images(tmp_path, vit(), HALF)
    assert found.names == ("black.JPG", "sub/red.png")
    assert found.pixels.shape == (2, 3, 32, 32)
    np.testing.assert_allclose(found.pixels[1].mean(axis=(1, 2)), [1, -1, -1], atol=1e-6)


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no pictures"):
        inputs.load_images(tmp_path, vit(), HALF)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(InputError, match="broken.png is not a readable picture"):
        inputs.load_images(tmp_path, vit(), HALF)
    with pytest.raises(InputError, match="does not exist"):
        inputs.load_images(tmp_path / "nowhere", vit(), HALF)


def test_batches_have_exactly_the_size_asked_for() -> None:
    found = [list(index) for index in inputs.batches(5, 2)]
    assert found == [[0, 1], [2, 3], [4, 0]]
    assert [len(index) for index in inputs.batches(3, 7)] == [7]
