"""Damaged files as hypothesis strategies: accidents to bytes, archives and pickles."""

from __future__ import annotations

import contextlib
import io
import pickletools
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ltmp_export.checkpoint.containers.known import GLOBALS

HUGE = (2**31, 2**32 - 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**100, 2**127)
DEPTHS = (30, 900, 1100, 5000, 30_000)
FOREIGN = ("os system", "builtins eval", "torch nn.Linear", "collections Counter", "numpy ndarray")

integers = st.one_of(
    st.integers(-3, 300), st.sampled_from(HUGE), st.sampled_from(HUGE).map(lambda n: -n)
)
floats = st.one_of(st.floats(), st.sampled_from((0.0, 1.0, -0.0, 1.0000001, 1e-45, 1e308)))
texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ("", "\x1b[2J", "a\nb", "..", "/", "%s{}", "[red]x[/red]", "é\u202e", "a" * 300)
    ),
)


class Blob(bytes):
    """A file's content, which hypothesis names in every message and caches by its name."""

    def __repr__(self) -> str:
        return f"Blob({zlib.crc32(self):08x}, {len(self)} bytes)"


# Bytes


@st.composite
def mutated(draw: st.DrawFn, blob: bytes, hot: Sequence[tuple[int, int]] = ()) -> bytes:
    """`blob` with one to four accidents, half of them inside one of the `hot` ranges."""
    for _ in range(draw(st.integers(1, 4))):
        spans = [(0, len(blob)), *hot]
        low, high = draw(st.sampled_from(spans))
        at = draw(st.integers(min(low, len(blob)), min(high, len(blob))))
        size = draw(st.one_of(st.integers(1, 16), st.integers(1, max(1, len(blob)))))
        kind = draw(st.sampled_from(_ACCIDENTS))
        if kind == "flip" and at < len(blob):
            flipped = blob[at] ^ (1 << draw(st.integers(0, 7)))
            blob = blob[:at] + bytes([flipped]) + blob[at + 1 :]
        elif kind == "write":
            new = draw(st.one_of(st.binary(min_size=1, max_size=9), st.sampled_from(_WORDS)))
            blob = blob[:at] + new + blob[at + len(new) :]
        elif kind == "insert":
            blob = blob[:at] + draw(st.binary(min_size=1, max_size=9)) + blob[at:]
        elif kind == "cut":
            blob = blob[:at]
        elif kind == "drop":
            blob = blob[:at] + blob[at + size :]
        elif kind == "zero":
            blob = blob[:at] + bytes(len(blob[at : at + size])) + blob[at + size :]
        elif kind == "repeat":
            blob = blob[:at] + blob[at : at + size] * draw(st.integers(2, 3)) + blob[at + size :]
        elif kind == "splice":
            other = draw(st.integers(0, len(blob)))
            blob = blob[:at] + blob[other : other + size] + blob[at + size :]
    return blob


_ACCIDENTS = ("flip", "flip", "write", "write", "insert", "cut", "drop", "zero", "repeat", "splice")
_WORDS = [n.to_bytes(8, "little") for n in (2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)]
_WORDS += [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80"]


def records(blob: bytes) -> dict[str, bytes]:
    """What a zip archive holds."""
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(entries: Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive with right checksums, so that what is in it is read."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name may be there twice
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


@st.composite
def rebuilt(draw: st.DrawFn, blob: bytes) -> bytes:
    """A sound archive of PyTorch's with unsound records, its pickle above all."""
    entries = list(records(blob).items())
    for _ in range(draw(st.integers(0, 2))):
        one, two = (draw(st.integers(0, len(entries) - 1)) for _ in range(2))
        (name, content), (other, others) = entries[one], entries[two]
        changes = ((name, others), (other, content), (name + "x", content), (name, b""))
        entries[one] = draw(st.sampled_from(changes))
    made = []
    for name, content in entries:
        if name.endswith("data.pkl"):
            content = draw(st.one_of(mutated(content), opcodes_changed(content)))
        made.append((name, content))
    return zipped(made, draw(st.sampled_from(_METHODS)))


_METHODS = (*(zipfile.ZIP_STORED,) * 3, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


# Pickles


@st.composite
def opcodes_changed(draw: st.DrawFn, pickled: bytes) -> bytes:
    """Whole opcodes of a pickle dropped, repeated, exchanged, or foreign ones between them."""
    places: list[int] = []
    with contextlib.suppress(ValueError):  # it may be another record
        places += [place for _, _, place in pickletools.genops(pickled) if place is not None]
    places = [*(places or [0]), len(pickled)]
    parts = [pickled[a:b] for a, b in pairwise(places)]
    for _ in range(draw(st.integers(1, 4))):
        at, other = (draw(st.integers(0, len(parts) - 1)) for _ in range(2))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            parts[at] = b""
        elif kind == 1:
            parts[at], parts[other] = parts[other], parts[at]
        elif kind == 2:
            parts.insert(at, draw(opcode))
        else:
            parts[at] = draw(pickled_value)
    return b"".join(parts)


def _global(name: str) -> bytes:
    module, _, rest = name.rpartition(" " if " " in name else ".")
    return f"c{module}\n{rest}\n".encode()


def _number(value: int) -> bytes:
    return b"\x8a\x11" + value.to_bytes(17, "little", signed=True)


def _text(value: str) -> bytes:
    content = value.encode("utf-8", "surrogatepass")
    return b"X" + len(content).to_bytes(4, "little") + content


def _tuple(parts: Sequence[bytes]) -> bytes:
    return b"(" + b"".join(parts) + b"t"


globals_ = st.sampled_from((*GLOBALS, *FOREIGN)).map(_global)
tensors = st.builds(
    lambda kind, key, count, offset, shape, stride: (
        _global("torch._utils._rebuild_tensor_v2")
        + _tuple(
            (
                _tuple((_text("storage"), _global(kind), _text(key), _text("cpu"), _number(count)))
                + b"Q",
                _number(offset),
                _tuple([_number(size) for size in shape]),
                _tuple([_number(size) for size in stride]),
                b"\x89",
                _global("collections.OrderedDict") + b")R",
            )
        )
        + b"R"
    ),
    st.sampled_from([name for name in GLOBALS if name.endswith("Storage")]),
    st.sampled_from(("0", "1", "99", "../0", "")),
    integers,
    integers,
    st.lists(integers, max_size=4),
    st.lists(integers, max_size=4),
)
_leaves = st.one_of(
    st.sampled_from((b"N", b"\x88", b"\x89", b")", b"]", b"}", b"\x8f")),
    integers.map(_number),
    floats.map(lambda x: b"G" + np.array(x, ">f8").tobytes()),
    texts.map(_text),
    st.binary(max_size=9).map(lambda content: b"C" + bytes([len(content)]) + content),
    globals_,
    tensors,
)


def _larger(values: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    several = st.lists(values, max_size=4)
    pairs = st.lists(st.tuples(values, values).map(b"".join), max_size=4)
    return st.one_of(
        several.map(_tuple),
        several.map(lambda parts: b"](" + b"".join(parts) + b"e"),
        pairs.map(lambda parts: b"}(" + b"".join(parts) + b"u"),
        several.map(lambda parts: b"\x8f(" + b"".join(parts) + b"\x90"),
        st.tuples(globals_, several.map(_tuple), st.sampled_from((b"R", b"\x81"))).map(b"".join),
        st.tuples(values, values).map(lambda pair: pair[0] + pair[1] + b"b"),
        several.map(lambda parts: _tuple([_text("storage"), *parts]) + b"Q"),
    )


pickled_value = st.recursive(_leaves, _larger, max_leaves=12)
_lengths = st.sampled_from((0, 1, 2**16, 2**31 - 1, 2**32 - 1, 2**63))
opcode = st.one_of(
    st.sampled_from([code.code.encode("latin1") for code in pickletools.opcodes]),
    _leaves,
    st.tuples(st.sampled_from((b"r", b"j")), _lengths).map(
        lambda pair: pair[0] + (pair[1] % 2**32).to_bytes(4, "little")
    ),
    st.tuples(st.sampled_from((b"\x8b", b"T", b"B", b"X")), _lengths).map(
        lambda pair: pair[0] + (pair[1] % 2**32).to_bytes(4, "little") + b"ab"
    ),
    st.tuples(st.sampled_from((b"\x8e", b"\x8d", b"\x95", b"\x96")), _lengths).map(
        lambda pair: pair[0] + pair[1].to_bytes(8, "little") + b"ab"
    ),
    st.sampled_from((b"q\x00", b"h\x00", b"h\x07", b"I99\n", b"L" + b"9" * 5000 + b"L\n", b"Fx\n")),
)
streams = st.one_of(
    st.lists(opcode, max_size=40).map(lambda parts: b"".join(parts) + b"."),
    pickled_value.map(lambda value: value + b"."),
    st.binary(max_size=60),
)


@st.composite
def nested(draw: st.DrawFn) -> bytes:
    """A value that contains one that contains one …"""
    depth = draw(st.sampled_from(DEPTHS))
    before, after = draw(
        st.sampled_from(
            ((b"(", b"l"), (b"(", b"t"), (b"}N", b"s"), (b"]", b"a"), (b"}K\x01", b"s"))
        )
    )
    return before * depth + b"N" + after * depth


def _bombs() -> list[bytes]:
    """Small pickles whose values share parts: what copies a part for each use takes too much."""
    many = b"](" + b"N" * 100_000 + b"eq\x00"
    keys = b"}(" + b"".join(_number(i) + b"N" for i in range(20_000)) + b"uq\x00"
    long = _text("a" * 1_000_000) + b"q\x00"
    calls = {
        many: ("torch.Size", "builtins.set", "builtins.frozenset"),
        long: ("torch.device", "pathlib.PosixPath"),
    }
    made = [
        b"(" + part + _global(name) + b"q\x01" + b"h\x01h\x00\x85R" * 600 + b"t"
        for part, names in calls.items()
        for name in names
    ]
    made.append(b"(" + long + _global("torch.device") + b"(" + b"h\x00" * 600 + b"tRt")
    encode = _global("_codecs.encode") + b"q\x01" + _text("latin1") + b"q\x02"
    made.append(b"(" + long + encode + b"h\x01h\x00h\x02\x86R" * 600 + b"t")
    made.append(
        b"(" + keys + _global("argparse.Namespace") + b"q\x01" + b"h\x01)\x81h\x00b" * 600 + b"t"
    )
    made.append(b"(" + b"N" * 100_000 + b"tq\x00}(" + b"h\x00N" * 600 + b"u")
    made.append(b"(" + b"\x8f" * 1_500_000 + b"t")
    return [Blob(stream) for stream in made]


def unpacking_to(size: int, name: str, head: bytes = b"", claimed: int | None = None) -> Blob:
    """A small archive with one record of `size` zeros, which may claim to have fewer."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w") as file,
    ):
        file.write(head)
        for _ in range(size >> 22):
            file.write(bytes(1 << 22))
    content = bytearray(buffer.getvalue())
    if claimed is not None:
        place = content.rindex(b"PK\x01\x02") + 24  # in the directory at the end
        content[place : place + 4] = claimed.to_bytes(4, "little")
    return Blob(content)


MARK = "MARK" * 4
bombs = st.sampled_from(_bombs())
planted = st.one_of(nested(), nested(), pickled_value)


def plant(blob: bytes, stream: bytes) -> bytes:
    """A value in the place of the text `MARK` in an archive of PyTorch's."""
    return zipped([(n, c.replace(_text(MARK), stream)) for n, c in records(blob).items()])
