"""Picture files as a person sees them: right pixels whatever their mode, depth, alpha and EXIF."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ltmp_export.errors import InputError
from ltmp_export.images import pictures

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 6), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (5, 6), dtype=np.uint8)


def as_it_is(picture: Image.Image) -> Tensor:
    """[channels, H, W], as they are."""
    pixels = np.array(picture)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)


def read(path: Path, mode: str = "RGB") -> NDArray[np.uint8]:
    """[H, W, channels], as they go into timm's transform."""
    pixels: Tensor = pictures.read(path, mode, as_it_is)
    return pixels.permute(1, 2, 0).numpy()


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(pixels[..., None], 3, axis=2)


def on_white(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.float64]:
    share = alpha[..., None] / 255
    return pixels * share + 255 * (1 - share)


def png(path: Path, samples: NDArray[np.uint16], kind: int, transparent: bytes = b"") -> Path:
    """A PNG of 16 bits [H, W, channels]; Pillow writes none but grey ones.

    Args:
        path: Where to.
        samples: Its values.
        kind: 0 grey, 2 colour, 4 grey with alpha, 6 colour with alpha.
        transparent: The value that is transparent.
    """

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    if transparent:
        parts.insert(1, chunk(b"tRNS", transparent))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def test_every_level_of_16_bits_is_that_of_8(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "8.png")
    Image.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / "16.png")
    for mode in ("RGB", "L", "RGBA"):
        np.testing.assert_array_equal(
            read(tmp_path / "16.png", mode), read(tmp_path / "8.png", mode)
        )


def test_16_bits_are_rounded_to_the_nearest_of_8(tmp_path: Path) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / "16.png")
    nearest = np.rint(values / 257).astype(np.uint8)  # 257 is odd: no value is in the middle
    np.testing.assert_array_equal(read(tmp_path / "16.png", "L")[..., 0], nearest)


def test_the_kinds_of_16_bits(tmp_path: Path) -> None:
    samples = np.concatenate([COLOUR, ALPHA[..., None]], 2).astype(np.uint16) * 257
    near = on_white(COLOUR, ALPHA)
    colour = png(tmp_path / "colour.png", samples[..., :3], 2)
    np.testing.assert_array_equal(read(colour), COLOUR)
    assert abs(read(png(tmp_path / "alpha.png", samples, 6)) - near).max() <= 1
    with_alpha = png(tmp_path / "grey.png", samples[..., 2:], 4)
    assert abs(read(with_alpha) - on_white(grey(COLOUR[..., 2]), ALPHA)).max() <= 1


def test_one_transparent_value_of_16_bits(tmp_path: Path) -> None:
    values = np.array([[[0], [771], [772], [65535]]], dtype=np.uint16)
    path = png(tmp_path / "a.png", values, 0, struct.pack(">H", 771))
    assert read(path, "L").ravel().tolist() == [0, 255, 3, 255]
    assert read(path, "RGBA")[0, :, 3].tolist() == [255, 0, 255, 255]


@pytest.mark.parametrize(
    ("mode", "form", "what"),
    [
        ("F", "TIFF", r"a TIFF of floating-point values \(F\)"),
        ("I", "TIFF", r"a TIFF of integer values \(I\)"),
        ("I;16", "TIFF", r"a TIFF of integer values \(I;16\)"),
    ],
)
def test_values_without_a_range_are_refused(
    tmp_path: Path, mode: str, form: str, what: str
) -> None:
    """Pillow opens by content; 12 bits of a TIFF are in mode I;16, too."""
    Image.new(mode, (4, 4), 5).save(tmp_path / "a.png", form)
    message = rf"^[^\n]*a.png is not a readable picture: {what}, whose range nothing tells; save it"
    with pytest.raises(InputError, match=message):
        read(tmp_path / "a.png")


def palette(transparency: bytes | int | None) -> Callable[[Path], None]:
    """Red, green, blue and hidden yellow."""

    def save(path: Path) -> None:
        picture = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8), "P")
        picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 0])
        more: dict[str, Any] = {} if transparency is None else {"transparency": transparency}
        picture.save(path, **more)

    return save


RED, GREEN, BLUE, YELLOW, WHITE = (
    [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 255, 255],
)  # fmt: skip


def saved(array: NDArray[np.uint8], mode: str, **options: Any) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(array, mode).save(path, **options)


ONE = np.array([[0, 255], [255, 0]], np.uint8)
CLEAR = np.array([[[255, 255, 0, 0], [0, 0, 255, 255]]], np.uint8)  # yellow that nobody sees
SEEN: dict[str, tuple[Callable[[Path], None], list[list[list[int]]]]] = {
    "1 bit": (
        lambda path: Image.fromarray(ONE).convert("1").save(path),
        [[[0] * 3, WHITE], [WHITE, [0] * 3]],
    ),
    "palette": (palette(None), [[RED, GREEN], [BLUE, YELLOW]]),
    "palette, one value clear": (palette(3), [[RED, GREEN], [BLUE, WHITE]]),
    "palette with alpha": (
        palette(bytes([255, 127, 255, 0])),
        [[RED, [128, 255, 128]], [BLUE, WHITE]],
    ),
    "colour with alpha": (saved(CLEAR, "RGBA"), [[WHITE, BLUE]]),
    "colour, one value clear": (
        lambda path: Image.new("RGB", (1, 1), (1, 2, 3)).save(path, transparency=(1, 2, 3)),
        [[WHITE]],
    ),
    "grey with alpha": (
        saved(np.array([[[7, 0], [7, 255], [0, 51]]], np.uint8), "LA"),
        [[WHITE, [7] * 3, [204] * 3]],
    ),
    "grey, one value clear": (saved(ONE, "L", transparency=0), [[WHITE] * 2] * 2),
}


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize(("save", "expected"), SEEN.values(), ids=SEEN.keys())
def test_pixels_as_seen(
    tmp_path: Path, save: Callable[[Path], None], expected: list[list[list[int]]]
) -> None:
    save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").tolist() == expected
    if all(len(set(pixel)) == 1 for row in expected for pixel in row):
        assert read(tmp_path / "a.png", "L")[..., 0].tolist() == np.array(expected)[..., 0].tolist()


def test_what_is_opaque_stays_as_it_is(tmp_path: Path) -> None:
    opaque = np.full_like(GREY, 255)
    for name, array, expected in (
        ("grey.png", GREY, grey(GREY)),
        ("colour.png", COLOUR, COLOUR),
        ("la.png", np.stack([GREY, opaque], 2), grey(GREY)),
        ("rgba.png", np.concatenate([COLOUR, opaque[..., None]], 2), COLOUR),
    ):
        Image.fromarray(array).save(tmp_path / name)
        np.testing.assert_array_equal(read(tmp_path / name), expected)


def test_four_channels_keep_the_alpha(tmp_path: Path) -> None:
    array = np.concatenate([COLOUR, ALPHA[..., None]], 2)
    Image.fromarray(array).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png", "RGBA"), array)
    assert abs(read(tmp_path / "a.png") - on_white(COLOUR, ALPHA)).max() <= 1
    Image.fromarray(COLOUR).save(tmp_path / "b.png")
    assert (read(tmp_path / "b.png", "RGBA")[..., 3] == 255).all()


def test_cmyk_is_not_inverted(tmp_path: Path) -> None:
    """Adobe's JPEG holds its inks inverted."""
    plate = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow: red
    plate.save(tmp_path / "a.jpg", quality=100, subsampling=0)
    assert b"Adobe" in (tmp_path / "a.jpg").read_bytes()[:64]
    assert abs(read(tmp_path / "a.jpg").astype(int) - RED).max() <= 3


def test_ycbcr(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 30, 60)).convert("YCbCr").save(tmp_path / "a.jpg", quality=100)
    assert abs(read(tmp_path / "a.jpg").astype(int) - [200, 30, 60]).max() <= 3


TURNED: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {  # as EXIF 2.3 defines it
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
    9: lambda stored: stored,  # no such orientation
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("deep", [False, True], ids=["8 bits", "16 bits"])
def test_pictures_are_turned_as_exif_says(tmp_path: Path, orientation: int, deep: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = GREY.astype(np.uint16) * 257 if deep else COLOUR
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    seen = TURNED[orientation](grey(GREY) if deep else COLOUR)
    np.testing.assert_array_equal(read(tmp_path / "a.png"), seen)


def test_damaged_exif_says_nothing(tmp_path: Path) -> None:
    exif = b"Exif\0\0" + b"II*\0" + b"\xff" * 20
    for name in ("a.png", "a.jpg"):
        Image.fromarray(COLOUR).save(tmp_path / name, exif=exif, quality=100, subsampling=0)
        assert abs(read(tmp_path / name).astype(int) - COLOUR).max() <= 8


def test_hidden_colours_do_not_reach_the_edge_of_what_is_seen(tmp_path: Path) -> None:
    """Laid on white before it is resized: a hidden colour would bleed into its neighbours."""
    array = np.zeros((8, 8, 4), np.uint8)
    array[:, :4] = (0, 255, 0, 0)
    array[:, 4:] = (0, 0, 0, 255)
    Image.fromarray(array).save(tmp_path / "a.png")
    small = pictures.read(tmp_path / "a.png", "RGB", lambda p: as_it_is(p.resize((3, 3))))
    assert torch.equal(small[0], small[1])


def test_the_first_of_several_frames(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), tuple(colour)) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert read(tmp_path / "a.webp")[0, 0].tolist() == RED


def test_a_picture_cut_off_in_the_middle(tmp_path: Path) -> None:
    noise = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(noise, "PNG")
    (tmp_path / "cut.png").write_bytes(noise.getvalue()[:5000])
    with pytest.raises(InputError, match="cut.png is not a readable picture"):
        read(tmp_path / "cut.png")
