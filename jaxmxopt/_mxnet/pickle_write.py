"""Pickles as MXNet loads them, written opcode by opcode: its classes are not needed for it."""

import pickle
import struct
from typing import Any

from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._mxnet.ndarray import CSR, write_array
from jaxmxopt._mxnet.record import MXNetRecord

__all__ = ["write_pickle"]

_PROTOCOL = 4
_NDARRAY = ("mxnet.ndarray.ndarray", "NDArray")
_SPARSE: dict[type, tuple[str, str]] = {
    RowSparse: ("mxnet.ndarray.sparse", "RowSparseNDArray"),
    CSR: ("mxnet.ndarray.sparse", "CSRNDArray"),
}


def write_pickle(value: Any) -> bytes:
    """Returns the pickle of containers, numbers, text, arrays and `MXNetRecord`.

    A dict that stands in several places is one dict when it is loaded.

    Raises:
        ValueError: MXNet 1 has no such array, or a number has more than 64 bits.
        TypeError: a value is of another kind.
    """
    writer = _Writer()
    writer.write(value, "the states")
    return b"".join([pickle.PROTO, bytes([_PROTOCOL]), *writer.parts, pickle.STOP])


class _Writer:
    """The opcodes so far, and where the memo has what."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.dicts: dict[int, int] = {}
        self.classes: dict[tuple[str, str], int] = {}
        self.memoized = 0

    def write(self, value: Any, what: str) -> None:
        parts = self.parts
        if value is None:
            parts.append(pickle.NONE)
        elif isinstance(value, bool):
            parts.append(pickle.NEWTRUE if value else pickle.NEWFALSE)
        elif isinstance(value, int):
            parts.append(self.integer(value, what))
        elif isinstance(value, float):
            parts.append(pickle.BINFLOAT + struct.pack(">d", value))
        elif isinstance(value, str):
            parts.append(_sized(pickle.BINUNICODE8, value.encode("utf-8", "surrogatepass")))
        elif isinstance(value, MXNetRecord):
            self.instance(value)
        elif isinstance(value, dict):
            self.dict(value, what)
        elif isinstance(value, (RowSparse, CSR)) or hasattr(value, "dtype"):
            self.array(value, what)
        elif isinstance(value, (list, tuple)):
            parts.append(pickle.MARK)
            for item in value:
                self.write(item, what)
            parts.append(pickle.LIST if isinstance(value, list) else pickle.TUPLE)
        else:
            raise TypeError(f"{what} must be arrays, numbers or text, got {type(value).__name__}.")

    def integer(self, value: int, what: str) -> bytes:
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"{what} must have numbers of at most 64 bits.")
        if -(2**31) <= value < 2**31:
            return pickle.BININT + struct.pack("<i", value)
        return pickle.LONG1 + b"\x08" + struct.pack("<q", value)

    def dict(self, value: dict[Any, Any], what: str) -> None:
        if id(value) in self.dicts:
            self.recall(self.dicts[id(value)])
            return
        self.parts.append(pickle.EMPTY_DICT)
        self.dicts[id(value)] = self.memoize()
        self.parts.append(pickle.MARK)
        for key, item in value.items():
            if type(key) not in (int, str):
                raise TypeError(f"{what} must have integers or strings as keys, got {key!r:.100}.")
            self.write(key, what)
            self.write(item, f"{what}[{key!r}]")
        self.parts.append(pickle.SETITEMS)

    def array(self, value: Any, what: str) -> None:
        self.named(_SPARSE.get(type(value), _NDARRAY))
        content = write_array(value, False, what)
        self.parts += [pickle.NONE, pickle.TUPLE1, pickle.REDUCE, pickle.EMPTY_DICT]
        self.write("handle", what)
        # A bytearray: MXNet reads it in place.
        self.named(("builtins", "bytearray"))
        self.parts += [_sized(pickle.BINBYTES8, content), pickle.TUPLE1, pickle.REDUCE]
        self.parts += [pickle.SETITEM, pickle.BUILD]

    def instance(self, value: MXNetRecord) -> None:
        self.named((value.module, value.name))
        self.parts += [pickle.EMPTY_TUPLE, pickle.NEWOBJ]
        self.dict(value.attributes, value.name)
        self.parts.append(pickle.BUILD)

    def named(self, of: tuple[str, str]) -> None:
        if of in self.classes:
            self.recall(self.classes[of])
            return
        for text in of:
            self.write(text, "a name")
        self.parts.append(pickle.STACK_GLOBAL)
        self.classes[of] = self.memoize()

    def memoize(self) -> int:
        self.parts.append(pickle.MEMOIZE)
        self.memoized += 1
        return self.memoized - 1

    def recall(self, place: int) -> None:
        self.parts.append(pickle.LONG_BINGET + struct.pack("<I", place))


def _sized(code: bytes, content: bytes) -> bytes:
    return code + struct.pack("<Q", len(content)) + content
