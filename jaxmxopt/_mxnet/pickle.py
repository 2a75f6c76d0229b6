"""An interpreter of pickles that knows data alone.

It runs the opcodes that write containers, numbers, text and arrays, and refuses all others.
Nothing is imported and nothing that a file names is called. Time and memory are bounded by the
size of the file.
"""

import pickle
import struct
from collections.abc import Callable, Iterator
from typing import Any

from jaxmxopt._mxnet.constructors import Global, Scope, shortened
from jaxmxopt._mxnet.cursor import Cursor

__all__ = ["run_pickle"]

_MOST_MARKS = 100
_NAMES = {
    value[0]: name
    for name, value in vars(pickle).items()
    if name.isupper() and isinstance(value, bytes) and len(value) == 1
}


def run_pickle(data: bytes) -> tuple[Any, Scope]:
    """Reads a pickle.

    Returns:
        What it holds: dicts, lists, tuples, text, numbers, None, `memoryview` for bytes,
        `Pending` and `Record` for objects; and what it has named and made on the way.

    Raises:
        ValueError: it is damaged, or holds anything else.
    """
    machine = _Machine(data)
    try:
        return machine.run(), machine.scope
    except ValueError as error:
        place = machine.cursor.position
        what = "is no state file: " if place <= 2 else ""
        raise ValueError(f"{what}{error} (a pickle, before byte {place})") from None


class _Machine:
    """The stack and the memo of one run."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.cursor = Cursor(data)
        self.scope = Scope(len(data))
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        # An object takes far more memory than the byte that may make it; real files have
        # one for every ten bytes at most.
        self.objects_left = 1000 + len(data) // 4

    def run(self) -> Any:
        stop = pickle.STOP[0]
        while (code := self.opcode()) != stop:
            operation = _OPERATIONS.get(code)
            if operation is None:
                self.refuse(code)
            else:
                operation(self)
        self.cursor.end("a pickle")
        if len(self.stack) != 1 or self.marks:
            raise ValueError(f"a pickle must leave one object, got {len(self.stack)}.")
        self.scope.check()
        return self.stack[0]

    def opcode(self) -> int:
        position = self.cursor.position
        if position == len(self.data):
            raise ValueError("truncated: an opcode must follow.")
        self.cursor.position = position + 1
        return self.data[position]

    def refuse(self, code: int) -> None:
        """Raises for an opcode that no array data needs, with the global that it is for."""
        if code == pickle.INST[0]:
            self.push(self.scope.name(self.line(), self.line()))
        named = next((item for item in reversed(self.stack) if isinstance(item, Global)), None)
        name = _NAMES.get(code, f"{code:#04x}")
        of = f" of {named}" if named is not None else ""
        raise ValueError(f"opcode {name}{of} is refused: only array data is read.")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def push_object(self, value: Any) -> None:
        self.count_object()
        self.stack.append(value)

    def count_object(self) -> None:
        self.objects_left -= 1
        if self.objects_left < 0:
            raise ValueError("a pickle must not make more objects than it has bytes for.")

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("the stack must not be empty.")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise ValueError(f"a {kind.__name__} must be on the stack.")
        return self.stack[-1]

    def mark(self) -> None:
        if len(self.marks) == _MOST_MARKS:
            raise ValueError(f"at most {_MOST_MARKS} containers must be open at once.")
        self.marks.append(len(self.stack))

    def pop_marked(self) -> list[Any]:
        if not self.marks:
            raise ValueError("there must be a mark.")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def line(self, encoding: str = "utf-8") -> str:
        end = self.data.find(b"\n", self.cursor.position)
        if end < 0:
            raise ValueError("a line must have an end.")
        text = str(self.cursor.take(end - self.cursor.position, "a line"), encoding)
        self.cursor.position += 1
        return text

    def sized(self, size_kind: str, what: str) -> memoryview:
        return self.cursor.take(self.cursor.number(size_kind, what), what)

    # Operations that are more than a line.

    def proto(self) -> None:
        version = self.cursor.number("B", "protocol")
        if version > 5:
            raise ValueError(f"protocol must be in [0, 5], got {version}.")

    def frame(self) -> None:
        size = self.cursor.number("Q", "frame")
        if size > self.cursor.left:
            raise ValueError(f"truncated: a frame has {size} bytes, {self.cursor.left} are left.")

    def int_line(self) -> None:
        text = self.line()
        self.push(text == "01" if text in ("00", "01") else _int(text))

    def string_line(self) -> None:
        text = self.line()
        if len(text) < 2 or text[0] not in "'\"" or text[-1] != text[0] or "\\" in text:
            raise ValueError(f"a string must stand in quotes, got {shortened(repr(text))}.")
        self.push(text[1:-1])

    def long_bytes(self, size_kind: str) -> None:
        content = self.sized(size_kind, "an integer")
        if len(content) > 9:
            raise ValueError(f"an integer must fit into 64 bits, got {len(content)} bytes.")
        self.push(int.from_bytes(content, "little", signed=True))

    def float_line(self) -> None:
        text = self.line()
        try:
            self.push(float(text))
        except ValueError:
            raise ValueError(f"a float must be a number, got {shortened(repr(text))}.") from None

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        if len(items) % 2:
            raise ValueError("a dict must have as many values as keys.")
        keys: Iterator[Any] = iter(items)
        for key in keys:
            # Keys of other types could be made to take any time to hash.
            if type(key) not in (int, str):
                raise ValueError(f"keys must be integers or strings, got {type(key).__name__}.")
            target[key] = next(keys)

    def set_item(self) -> None:
        value = self.pop()
        self.set_items([self.pop(), value])

    def marked_dict(self) -> None:
        items = self.pop_marked()
        self.push_object({})
        self.set_items(items)

    def append(self) -> None:
        value = self.pop()
        self.top(list).append(value)

    def extend(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def tuple_of(self, size: int) -> None:
        items = [self.pop() for _ in range(size)]
        self.push_object(tuple(reversed(items)))

    def put(self, index: int) -> None:
        if not self.stack:
            raise ValueError("the stack must not be empty.")
        self.count_object()
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError(f"the memo must have {index}.")
        self.push(self.memo[index])

    def stack_global(self) -> None:
        name = self.pop()
        self.push_object(self.scope.name(self.pop(), name))

    def reduce(self) -> None:
        args = self.pop()
        self.push_object(self.scope.call(self.pop(), args))

    def new_object(self) -> None:
        args = self.pop()
        self.push_object(self.scope.instance(self.pop(), args))

    def build(self) -> None:
        state = self.pop()
        if not self.stack:
            raise ValueError("the stack must not be empty.")
        self.scope.build(self.stack[-1], state)


def _int(text: str) -> int:
    digits = text.removesuffix("L")
    if len(digits) > 20:
        raise ValueError(f"an integer must fit into 64 bits, got {len(digits)} digits.")
    return int(digits)


def _text(content: memoryview, encoding: str = "utf-8") -> str:
    return str(content, encoding)


_Operation = Callable[[_Machine], None]
_OPERATIONS: dict[int, _Operation] = {
    code[0]: operation
    for code, operation in {
        pickle.PROTO: _Machine.proto,
        pickle.FRAME: _Machine.frame,
        pickle.NONE: lambda m: m.push(None),
        pickle.NEWTRUE: lambda m: m.push(True),
        pickle.NEWFALSE: lambda m: m.push(False),
        pickle.INT: _Machine.int_line,
        pickle.LONG: _Machine.int_line,
        pickle.BININT: lambda m: m.push(m.cursor.number("i", "an integer")),
        pickle.BININT1: lambda m: m.push(m.cursor.number("B", "an integer")),
        pickle.BININT2: lambda m: m.push(m.cursor.number("H", "an integer")),
        pickle.LONG1: lambda m: m.long_bytes("B"),
        pickle.LONG4: lambda m: m.long_bytes("i"),
        pickle.FLOAT: _Machine.float_line,
        pickle.BINFLOAT: lambda m: m.push(struct.unpack(">d", m.cursor.take(8, "a float"))[0]),
        pickle.STRING: _Machine.string_line,
        pickle.BINSTRING: lambda m: m.push(_text(m.sized("i", "a string"), "latin-1")),
        pickle.SHORT_BINSTRING: lambda m: m.push(_text(m.sized("B", "a string"), "latin-1")),
        pickle.UNICODE: lambda m: m.push(m.line("raw-unicode-escape")),
        pickle.BINUNICODE: lambda m: m.push(_text(m.sized("I", "a string"))),
        pickle.SHORT_BINUNICODE: lambda m: m.push(_text(m.sized("B", "a string"))),
        pickle.BINUNICODE8: lambda m: m.push(_text(m.sized("Q", "a string"))),
        pickle.BINBYTES: lambda m: m.push(m.sized("I", "bytes")),
        pickle.SHORT_BINBYTES: lambda m: m.push(m.sized("B", "bytes")),
        pickle.BINBYTES8: lambda m: m.push(m.sized("Q", "bytes")),
        pickle.BYTEARRAY8: lambda m: m.push(m.sized("Q", "bytes")),
        pickle.EMPTY_DICT: lambda m: m.push_object({}),
        pickle.EMPTY_LIST: lambda m: m.push_object([]),
        pickle.EMPTY_TUPLE: lambda m: m.push(()),
        pickle.MARK: _Machine.mark,
        pickle.DICT: _Machine.marked_dict,
        pickle.LIST: lambda m: m.push_object(m.pop_marked()),
        pickle.TUPLE: lambda m: m.push_object(tuple(m.pop_marked())),
        pickle.TUPLE1: lambda m: m.tuple_of(1),
        pickle.TUPLE2: lambda m: m.tuple_of(2),
        pickle.TUPLE3: lambda m: m.tuple_of(3),
        pickle.SETITEM: _Machine.set_item,
        pickle.SETITEMS: lambda m: m.set_items(m.pop_marked()),
        pickle.APPEND: _Machine.append,
        pickle.APPENDS: lambda m: m.extend(m.pop_marked()),
        pickle.PUT: lambda m: m.put(_int(m.line())),
        pickle.BINPUT: lambda m: m.put(m.cursor.number("B", "memo")),
        pickle.LONG_BINPUT: lambda m: m.put(m.cursor.number("I", "memo")),
        pickle.MEMOIZE: lambda m: m.put(len(m.memo)),
        pickle.GET: lambda m: m.get(_int(m.line())),
        pickle.BINGET: lambda m: m.get(m.cursor.number("B", "memo")),
        pickle.LONG_BINGET: lambda m: m.get(m.cursor.number("I", "memo")),
        pickle.GLOBAL: lambda m: m.push_object(m.scope.name(m.line(), m.line())),
        pickle.STACK_GLOBAL: _Machine.stack_global,
        pickle.REDUCE: _Machine.reduce,
        pickle.NEWOBJ: _Machine.new_object,
        pickle.BUILD: _Machine.build,
    }.items()
}
