"""Pickles as data: an interpreter of opcodes that cannot call anything.

Python's and torch's unpicklers look up what a pickle names and call it. Here a name is only ever
compared with a closed table (`containers.known.GLOBALS`); what is not in it is refused by name.
The table holds what PyTorch and timm write: tensors, containers, numbers, strings,
`argparse.Namespace`, `OrderedDict`, paths and NumPy scalars. Results are plain values; of a tensor
only its description is read here.

The opcodes are decoded by `pickletools.genops` of the standard library, which runs nothing.
"""

from __future__ import annotations

import argparse
import pickletools
import warnings
from collections.abc import Callable
from typing import Any, BinaryIO

from ltmp_export.checkpoint.containers.elements import ElementType
from ltmp_export.checkpoint.containers.known import (
    GLOBALS,
    RENAMED,
    ForbiddenGlobalError,
    Global,
    NumpyDtype,
    PickleError,
    StorageClaim,
    TensorClaim,
    as_key,
)
from ltmp_export.checkpoint.containers.stored import StoredTensor

MOST_BYTES = 16 * 2**20  # of a pickle: a state_dict takes about 100 for each tensor
MOST_OPCODES = 500_000  # each can make an object of up to 300 bytes
MOST_COPIED = 2**22  # bytes, characters and items that calls take: each may copy what is shared


def load(stream: BinaryIO, tensor: Callable[[TensorClaim], StoredTensor]) -> Any:
    """The value of the pickle that begins here; the stream then stands behind it.

    Args:
        stream: In memory: a pickle may ask for any number of bytes.
        tensor: What a tensor becomes.

    Raises:
        ForbiddenGlobalError: It names something that is not in the table.
        PickleError: It is damaged, too long, or not of PyTorch's making.
    """
    machine = _Machine(tensor)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of strange escapes in text
            for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
                if count > MOST_OPCODES:
                    raise PickleError(f"a pickle of more than {MOST_OPCODES} opcodes")
                machine.step(opcode.name, argument)
        return _plain(machine.stack.pop())
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as err:
        raise PickleError(f"{type(err).__name__}: {err}") from err


def _plain(value: Any) -> Any:
    """Globals may be called or state a type, but not stand for themselves, element types apart."""
    if isinstance(value, Global) and isinstance(value.value, ElementType):
        return value.value
    if isinstance(value, Global):
        raise ForbiddenGlobalError(value.name)
    if isinstance(value, (NumpyDtype, StorageClaim)):
        raise ForbiddenGlobalError("numpy.dtype" if isinstance(value, NumpyDtype) else "a storage")
    return value


def _argument(value: Any) -> Any:
    """An element type, where a global stands for one."""
    return value.value if isinstance(value, Global) and value.value is not None else value


def _literal(value: Any) -> Any:
    """Text must be Unicode and a number of a size that can be shown."""
    if isinstance(value, str):
        value.encode()  # lone surrogates raise UnicodeEncodeError, a ValueError
    if isinstance(value, int) and value.bit_length() > 128:
        raise PickleError(f"an integer of {value.bit_length()} bits")
    return value


_LITERALS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    )
)
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """Stack, marks and memo of one pickle."""

    def __init__(self, tensor: Callable[[TensorClaim], StoredTensor]) -> None:
        self.tensor = tensor
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0

    def step(self, opcode: str, argument: Any) -> None:
        """Take one opcode."""
        if opcode in _LITERALS:
            self.stack.append(_literal(argument))
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in _EMPTY:
            self.stack.append(_EMPTY[opcode]())
        elif opcode in _SHORT_TUPLES:
            self.stack.append(tuple(self._take(_SHORT_TUPLES[opcode])))
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            method = getattr(self, f"op_{opcode.lower()}", None)
            if method is None:
                raise PickleError(f"opcode {opcode}")
            method(argument)

    def _take(self, count: int) -> list[Any]:
        """The topmost values, none of them below the last mark."""
        start = len(self.stack) - count
        if start < (self.marks[-1] if self.marks else 0):
            raise PickleError("the stack is empty")
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _counted(self, value: Any) -> Any:
        """A value that is about to be copied: a file may ask for that again and again.

        Raises:
            PickleError: Too often.
        """
        if isinstance(value, (str, bytes, list, tuple, dict, set, frozenset)):
            self.copied += len(value)
        if self.copied > MOST_COPIED:
            raise PickleError(f"calls that take more than {MOST_COPIED} items")
        return value

    def _to_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def op_mark(self, _: None) -> None:
        self.marks.append(len(self.stack))

    def op_pop(self, _: None) -> None:
        self._take(1)

    def op_pop_mark(self, _: None) -> None:
        self._to_mark()

    def op_memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def op_dup(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def op_tuple(self, _: None) -> None:
        self.stack.append(tuple(self._to_mark()))

    def op_list(self, _: None) -> None:
        self.stack.append(self._to_mark())

    def op_dict(self, _: None) -> None:
        self._fill({}, self._to_mark())

    def op_frozenset(self, _: None) -> None:
        self.stack.append(frozenset(map(as_key, self._to_mark())))

    def op_append(self, _: None) -> None:
        self._extend(self._take(1))

    def op_appends(self, _: None) -> None:
        self._extend(self._to_mark())

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise PickleError("items for what is no list")
        self.stack[-1].extend(map(_plain, values))

    def op_additems(self, _: None) -> None:
        values = self._to_mark()
        if not isinstance(self.stack[-1], set):
            raise PickleError("items for what is no set")
        self.stack[-1].update(map(as_key, values))

    def op_setitem(self, _: None) -> None:
        pair = self._take(2)
        self._fill(self.stack.pop(), pair)

    def op_setitems(self, _: None) -> None:
        values = self._to_mark()
        self._fill(self.stack.pop(), values)

    def _fill(self, target: Any, values: list[Any]) -> None:
        if not isinstance(target, dict) or len(values) % 2:
            raise PickleError("items for what is no dictionary")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[as_key(key)] = _plain(value)
        self.stack.append(target)

    def op_global(self, name: str) -> None:
        module, _, rest = name.partition(" ")
        self._look_up(module, rest)

    def op_stack_global(self, _: None) -> None:
        module, name = self._take(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("a global that is no name")
        self._look_up(module, name)

    def _look_up(self, module: str, name: str) -> None:
        full = f"{RENAMED.get(module, module)}.{name}"
        if full not in GLOBALS:
            raise ForbiddenGlobalError(f"{module}.{name}"[:100])
        self.stack.append(GLOBALS[full])

    def op_reduce(self, _: None) -> None:
        called, arguments = self._take(2)
        if not isinstance(called, Global) or called.build is None:
            raise PickleError("a call of what cannot be called")
        if not isinstance(arguments, tuple):
            raise PickleError("a call without arguments")
        values = map(_argument, arguments)
        made = called.build(*map(self._counted, values))
        self.stack.append(self.tensor(made) if isinstance(made, TensorClaim) else made)

    op_newobj = op_reduce

    def op_build(self, _: None) -> None:
        (state,) = self._take(1)
        target = self.stack[-1]
        if isinstance(target, argparse.Namespace):
            self._counted(state)
            for key, value in state.items():
                vars(target)[key] = _plain(value)
        elif isinstance(target, NumpyDtype):
            target.order(state)
        elif not isinstance(target, dict):  # a state_dict's own attributes are of no use here
            raise PickleError(f"a state for a {type(target).__name__}")

    def op_binpersid(self, _: None) -> None:
        (parts,) = self._take(1)
        if not isinstance(parts, tuple) or len(parts) < 5 or parts[0] != "storage":
            raise PickleError("a reference that is no storage")
        kind, key, _, size, *view = parts[1:]
        if not isinstance(kind, Global) or not kind.name.endswith("Storage"):
            raise PickleError("a storage without element type")
        if not isinstance(key, str) or type(size) is not int or size < 0 or any(view):
            raise PickleError("a storage without name or size, or a view of another")
        self.stack.append(StorageClaim(key, kind.value, size))
