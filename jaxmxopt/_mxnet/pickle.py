"""Pickles read as data: containers, numbers, text and arrays; other opcodes are refused.

The standard library's Unpickler with an allow-list would not do: before it asks for any class, it
allocates what a file declares, 64 GiB for a memo index of 2**32, and hashes tuples as keys, nested
ones for 2**40 steps. Its tokenizer, `pickletools.genops`, takes time and memory in proportion to
the file, and so does what is done here with the tokens. Nothing that a file names is called.
"""

import pickle
import pickletools
import struct
import warnings
from collections.abc import Callable
from typing import Any

from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._mxnet.constructors import Global, Scope
from jaxmxopt._mxnet.ndarray import CSR, write_array
from jaxmxopt._mxnet.record import MXNetRecord

__all__ = [
    "run_pickle",
    "write_pickle",
]

_MOST_MARKS = 100
# Opcodes whose argument is a value.
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def run_pickle(data: bytes) -> tuple[Any, Scope]:
    """Read a pickle.

    Returns:
        The content: dicts, lists, tuples, text, numbers, None, bytes, `Pending` and `Record` for
        objects; and what the pickle has named and made on the way.

    Raises:
        ValueError: it is damaged, or holds anything else.
    """
    machine = _Machine(data)
    try:
        return machine.run(), machine.scope
    except ValueError as error:
        place = machine.position
        what = "is no state file: " if place <= 2 else ""
        raise ValueError(f"{what}{error!s:.600} (a pickle, at byte {place})") from None


class _Machine:
    """The stack and the memo of one run."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.scope = Scope(len(data))
        self.position = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        # An object takes far more memory than the byte that may make it; real files have
        # one for every ten bytes at most.
        self.objects_left = 1000 + len(data) // 4

    def run(self) -> Any:
        with warnings.catch_warnings():
            # Text with escapes that Python does not know: the file's affair, not the reader's.
            warnings.simplefilter("ignore", DeprecationWarning)
            for opcode, argument, position in pickletools.genops(self.data):
                self.position = position or 0
                self.execute(opcode.name, argument)
        if self.position + 1 != len(self.data):
            raise ValueError(f"it must end there, got {len(self.data)} bytes.")
        if len(self.stack) != 1 or self.marks:
            raise ValueError(f"it must leave one object, got {len(self.stack)}.")
        self.scope.check()
        return self.stack[0]

    def execute(self, code: str, argument: Any) -> None:
        """Do what one opcode says."""
        if code in _VALUES:
            if type(argument) is int and argument.bit_length() > 64:
                raise ValueError("an integer must fit into 64 bits.")
            self.stack.append(argument)
        elif code in _CONSTANTS:
            self.stack.append(_CONSTANTS[code])
        elif code in _OPERATIONS:
            self.made(_OPERATIONS[code](self))
        elif code == "MARK":
            if len(self.marks) == _MOST_MARKS:
                raise ValueError(f"at most {_MOST_MARKS} containers must be open at once.")
            self.marks.append(len(self.stack))
        elif code in ("PROTO", "FRAME"):
            most = 5 if code == "PROTO" else len(self.data) - self.position - 9
            if argument > most:
                raise ValueError(f"{code} must be {most} at most, got {argument}.")
        elif code in ("SETITEM", "SETITEMS", "APPEND", "APPENDS", "BUILD"):
            self.fill(code)
        elif code in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.count_object()
            self.memo[len(self.memo) if argument is None else argument] = self.top()
        elif code in ("GET", "BINGET", "LONG_BINGET"):
            if argument not in self.memo:
                raise ValueError(f"the memo must have {argument}.")
            self.stack.append(self.memo[argument])
        elif code == "GLOBAL":
            self.made(self.scope.name(*argument.split(" ", 1)))
        elif code != "STOP":
            self.refuse(code, argument)

    def refuse(self, code: str, argument: Any) -> None:
        """Raise for an opcode that no array data needs, with the global that it is for."""
        named = [str(self.scope.name(*argument.split(" ", 1)))] if code == "INST" else []
        named += [str(item) for item in reversed(self.stack) if isinstance(item, Global)]
        of = f" of {named[0]}" if named else ""
        raise ValueError(f"opcode {code}{of} is refused: only array data is read.")

    def made(self, value: Any) -> None:
        self.count_object()
        self.stack.append(value)

    def count_object(self) -> None:
        self.objects_left -= 1
        if self.objects_left < 0:
            raise ValueError("it must not make more objects than it has bytes for.")

    def top(self) -> Any:
        if not self.stack:
            raise ValueError("the stack must not be empty.")
        return self.stack[-1]

    def pop(self, count: int | None = 1) -> list[Any]:
        """Take so many items off the stack; None for those above the mark."""
        if count is None and not self.marks:
            raise ValueError("there must be a mark.")
        least = self.marks[-1] if self.marks else 0
        start = least if count is None else len(self.stack) - count
        if start < least:
            raise ValueError("the stack must not be empty.")
        if count is None:
            self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def dict_of(self, items: list[Any], filled: dict[Any, Any]) -> dict[Any, Any]:
        if len(items) % 2:
            raise ValueError("a dict must have as many values as keys.")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Keys of other types could be made to take any time to hash.
            if type(key) not in (int, str):
                raise ValueError(f"keys must be integers or strings, got {type(key).__name__}.")
            filled[key] = value
        return filled

    def fill(self, code: str) -> None:
        """Give the object on the stack items or content."""
        items = self.pop({"SETITEM": 2, "APPEND": 1, "BUILD": 1}.get(code))
        target = self.top()
        if code == "BUILD":
            self.scope.build(target, items[0])
        elif type(target) is dict and code.startswith("SET"):
            self.dict_of(items, target)
        elif type(target) is list and code.startswith("APPEND"):
            target.extend(items)
        else:
            raise ValueError(f"{code} must be for another object than {type(target).__name__}.")


_OPERATIONS: dict[str, Callable[[_Machine], Any]] = {
    "EMPTY_DICT": lambda m: {},
    "EMPTY_LIST": lambda m: [],
    "DICT": lambda m: m.dict_of(m.pop(None), {}),
    "LIST": lambda m: m.pop(None),
    "TUPLE": lambda m: tuple(m.pop(None)),
    "TUPLE1": lambda m: tuple(m.pop(1)),
    "TUPLE2": lambda m: tuple(m.pop(2)),
    "TUPLE3": lambda m: tuple(m.pop(3)),
    "STACK_GLOBAL": lambda m: m.scope.name(*m.pop(2)),
    "REDUCE": lambda m: m.scope.call(*m.pop(2)),
    "NEWOBJ": lambda m: m.scope.instance(*m.pop(2)),
}


_PROTOCOL = 4
_NDARRAY = ("mxnet.ndarray.ndarray", "NDArray")
_SPARSE: dict[type, tuple[str, str]] = {
    RowSparse: ("mxnet.ndarray.sparse", "RowSparseNDArray"),
    CSR: ("mxnet.ndarray.sparse", "CSRNDArray"),
}


def write_pickle(value: Any) -> bytes:
    """Return the pickle of containers, numbers, text, arrays and `MXNetRecord`.

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
