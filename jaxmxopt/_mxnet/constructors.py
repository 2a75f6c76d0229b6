"""The few globals that a pickle of array data may name, each as a constructor of data.

A class of any other module may stand for one thing alone: an optimizer or a scheduler, which
becomes a record of its name and attributes. Nothing here imports or calls what a file names.
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn

import numpy as np

from jaxmxopt._mxnet.ndarray import DTYPES, Cursor, array_of, read_array

__all__ = ["Global", "Pending", "Record", "Scope", "shortened"]

_BYTES = (bytes, bytearray, memoryview)
_LATIN = ("latin1", "latin-1")
_OBJECT = {("builtins", "object"), ("__builtin__", "object")}
_STANDARD = sys.stdlib_module_names | {"__builtin__", "copy_reg"}
_ORDERS: dict[str, Any] = {"<": "<", "=": "<", "|": "<", ">": ">"}
_NUMPY_KINDS = {kind.str[1:]: kind for kind in DTYPES if kind.kind in "fiub"}


class Global:
    """A name in a file."""

    def __init__(self, module: str, name: str) -> None:
        self.key = module, name

    def __str__(self) -> str:
        return shortened(".".join(self.key))

    def refuse(self, what: str = "only array data is read") -> NoReturn:
        """Raise, with the name."""
        raise ValueError(f"{self} is refused: {what}.")


class Pending:
    """An object whose content follows; `value` is the NDArray, NumPy array or dtype."""

    def __init__(self, make: "Callable[[Scope, Any], Any]") -> None:
        self.make = make
        self.built = False
        self.value: Any = None


class Record:
    """An instance of a class that is not ours to make: its name and its attributes."""

    def __init__(self, of: Global) -> None:
        self.of = of
        self.attributes: Mapping[str, Any] | None = None


def shortened(text: str) -> str:
    """Return a text for a message, however long it is."""
    return text if len(text) <= 120 else text[:117] + "..."


class Scope:
    """The names and objects of a file so far, and how much may still be taken out of it.

    Through the memo of a pickle a few bytes can stand for a tree of any size.

    Attributes:
        np_shape: whether an array was written with MXNet's `np_shape` on.
    """

    def __init__(self, size: int) -> None:
        # Real files copy no byte more often than this, whatever their protocol.
        self._left = 1000 + 5 * size
        self._globals: dict[tuple[str, str], Global] = {}
        self._records: list[Record] = []
        self.np_shape = False

    def spend(self, size: int) -> None:
        """Count items, or bytes that are copied."""
        self._left -= size
        if self._left < 0:
            raise ValueError("a file must not hold more than it has bytes for.")

    def name(self, module: Any, name: Any) -> Global:
        """Return a global, by its name."""
        if type(module) is not str or type(name) is not str:
            raise ValueError("the name of a global must be two strings.")
        named = self._globals.setdefault((module, name), Global(module, name))
        if named.key not in _KNOWN and module.partition(".")[0] in _STANDARD:
            named.refuse()
        return named

    def call(self, function: Any, args: Any) -> Any:
        """Return what a constructor makes of its arguments."""
        if not isinstance(function, Global) or type(args) is not tuple:
            raise ValueError("only a global can be called, with a tuple of arguments.")
        make, most = _CONSTRUCTORS.get(function.key, (None, 0))
        if make is None:
            function.refuse()
        made = make(self, *args) if len(args) <= most else None
        if made is None:
            function.refuse("it does not have the arguments of array data")
        return made

    def instance(self, of: Any, args: Any) -> Record:
        """Return an instance of some class, made without arguments."""
        if not isinstance(of, Global):
            raise ValueError("only a global can have instances.")
        if type(args) is not tuple or args or of.key in _KNOWN:
            of.refuse()
        self._records.append(Record(of))
        return self._records[-1]

    def build(self, made: Any, state: Any) -> None:
        """Give an object its content, once."""
        if isinstance(made, Record):
            if made.attributes is not None or type(state) is not dict:
                made.of.refuse("its attributes must be a dict")
            if any(type(key) is not str for key in state):
                made.of.refuse("the names of its attributes must be strings")
            made.attributes = state
        elif isinstance(made, Pending) and not made.built:
            made.value = made.make(self, state)
            made.built = True
        else:
            raise ValueError(f"content must be of an object without, got {type(made).__name__}.")

    def check(self) -> None:
        """Raise for names and records that are not part of array data, wherever they stand."""
        classes = {record.of.key for record in self._records}
        for named in self._globals.values():
            if named.key not in classes and named.key not in _KNOWN:
                named.refuse()
        for record in self._records:
            attributes = record.attributes or {}
            if not ({"rescale_grad", "num_update"} <= set(attributes) or "base_lr" in attributes):
                record.of.refuse("it is neither an optimizer nor a scheduler")


# Constructors: None stands for arguments that array data does not have.


def _encoded(scope: Scope, text: Any = None, encoding: Any = "latin1") -> Any:
    if type(text) is not str or encoding not in _LATIN:
        return None
    scope.spend(len(text))
    return text.encode("latin-1")


def _bytearray(scope: Scope, content: Any = b"", encoding: Any = None) -> Any:
    if encoding is not None:
        return _encoded(scope, content, encoding)
    return content if isinstance(content, _BYTES) else None


def _reconstructor(scope: Scope, of: Any = None, base: Any = None, state: Any = ()) -> Any:
    # How protocols 0 and 1 make an instance of a class that derives from object.
    plain = isinstance(base, Global) and base.key in _OBJECT and state is None
    return scope.instance(of, ()) if plain else None


def _ndarray(scope: Scope, handle: Any = ()) -> Any:
    return Pending(_ndarray_content) if handle is None else None


def _ndarray_content(scope: Scope, state: Any) -> Any:
    handle = state.get("handle", 0) if type(state) is dict else 0
    if handle is None:
        return None
    if not isinstance(handle, _BYTES):
        raise ValueError("an NDArray must have a handle of bytes.")
    cursor = Cursor(handle)
    array, np_shape = read_array(cursor)
    cursor.end("an NDArray")
    scope.np_shape |= np_shape
    return array


def _numpy_dtype(scope: Scope, kind: Any = None, align: Any = None, copy: Any = None) -> Any:
    known = type(kind) is str and kind in _NUMPY_KINDS
    return Pending(partial(_dtype_content, _NUMPY_KINDS[kind])) if known else None


def _dtype_content(kind: np.dtype[Any], scope: Scope, state: Any) -> Any:
    order = state[1] if type(state) is tuple and len(state) >= 2 else None
    if type(order) is not str or order not in _ORDERS or any(state[2:5]):
        raise ValueError("a NumPy dtype must be one of numbers.")
    return kind.newbyteorder(_ORDERS[order])


def _numpy_scalar(scope: Scope, dtype: Any = None, content: Any = None) -> Any:
    return _array(scope, (), dtype, False, content).item()


def _numpy_array(scope: Scope, of: Any = None, shape: Any = None, content: Any = None) -> Any:
    plain = isinstance(of, Global) and of.key == ("numpy", "ndarray") and shape == (0,)
    return Pending(_numpy_content) if plain else None


def _numpy_content(scope: Scope, state: Any) -> Any:
    if type(state) is not tuple or len(state) != 5:
        raise ValueError("a NumPy array must have a version, shape, dtype, order and bytes.")
    return _array(scope, *state[1:])


def _numpy_buffer(
    scope: Scope, content: Any = None, dtype: Any = None, shape: Any = None, order: Any = None
) -> Any:
    return _array(scope, shape, dtype, order == "F", content)


def _array(scope: Scope, shape: Any, dtype: Any, fortran: Any, content: Any) -> Any:
    # Python 2 has text where Python 3 has bytes.
    content = _encoded(scope, content) if type(content) is str else content
    sizes = type(shape) is tuple and all(type(size) is int for size in shape)
    kind = dtype.value if isinstance(dtype, Pending) else None
    if not sizes or not isinstance(content, _BYTES) or not isinstance(kind, np.dtype):
        raise ValueError("a NumPy array must have a shape, a dtype of numbers and bytes.")
    order = shape[::-1] if fortran else shape
    array = array_of(memoryview(content), kind, order, "a NumPy array")
    scope.spend(array.nbytes)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return array.T if fortran else array


_CORES = ("numpy.core", "numpy._core")
_BUILTINS = ("builtins", "__builtin__")
# What makes each, and with how many arguments at most.
_CONSTRUCTORS: dict[tuple[str, str], tuple[Callable[..., Any], int]] = {
    **dict.fromkeys(
        (
            ("mxnet.ndarray", "NDArray"),
            ("mxnet.ndarray.ndarray", "NDArray"),
            ("mxnet.ndarray.sparse", "RowSparseNDArray"),
            ("mxnet.ndarray.sparse", "CSRNDArray"),
            ("mxnet.numpy.multiarray", "ndarray"),
        ),
        (_ndarray, 1),
    ),
    **{(module, "bytearray"): (_bytearray, 2) for module in _BUILTINS},
    **{(module, "bytes"): (_bytearray, 0) for module in _BUILTINS},
    ("_codecs", "encode"): (_encoded, 2),
    ("copyreg", "_reconstructor"): (_reconstructor, 3),
    ("copy_reg", "_reconstructor"): (_reconstructor, 3),
    ("numpy", "dtype"): (_numpy_dtype, 3),
    **{(f"{core}.multiarray", "_reconstruct"): (_numpy_array, 3) for core in _CORES},
    **{(f"{core}.multiarray", "scalar"): (_numpy_scalar, 2) for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): (_numpy_buffer, 4) for core in _CORES},
}
_KNOWN = _CONSTRUCTORS.keys() | _OBJECT | {("numpy", "ndarray")}
