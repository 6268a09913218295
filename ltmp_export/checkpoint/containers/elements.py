"""Element types of tensors, by PyTorch's names: PyTorch itself takes seconds to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ElementType:
    """What the numbers of a tensor are.

    Attributes:
        name: PyTorch's, like "float32".
        itemsize: Bytes of one.
    """

    name: str
    itemsize: int

    def __str__(self) -> str:
        return f"torch.{self.name}"

    @property
    def torch(self) -> torch.dtype:
        """PyTorch's own; AttributeError where the installed one has none of that name."""
        import torch

        found: torch.dtype = getattr(torch, self.name)
        return found


_SIZES = {
    **{"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2},
    **{"int64": 8, "int32": 4, "int16": 2, "int8": 1},
    **{"uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1, "bool": 1},
    **{"complex128": 16, "complex64": 8, "complex32": 4, "bcomplex32": 4},
    **{f"float8_{kind}": 1 for kind in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")},
    **{"float4_e2m1fn_x2": 1, "quint8": 1, "qint8": 1, "qint32": 4},
    **{"quint4x2": 1, "quint2x4": 1, "bits16": 2},
    **dict.fromkeys(("bits1x8", "bits2x4", "bits4x2", "bits8"), 1),
    **{f"{sign}int{bits}": 1 for sign in ("", "u") for bits in range(1, 8)},
}

BY_NAME = {name: ElementType(name, size) for name, size in _SIZES.items()}
FLOAT64, FLOAT32, FLOAT16, BFLOAT16, UINT8 = (
    BY_NAME[name] for name in ("float64", "float32", "float16", "bfloat16", "uint8")
)
FLOATS = (FLOAT32, FLOAT16, BFLOAT16, FLOAT64)
