"""The bytes of one NDArray, as MXNet writes them into `.params` and, pickled, into `.states`.

Little-endian: a magic number for the version, the storage type, shapes, a device that means
nothing here, the dtype, the data; for sparse arrays the auxiliary arrays after it.
"""

import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmxopt._core.sparse import RowSparse

__all__ = [
    "CSR",
    "DTYPES",
    "MAX_NDIM",
    "Cursor",
    "array_of",
    "check_csr",
    "check_row_sparse",
    "check_shape",
    "read_array",
    "write_array",
]

MAX_NDIM = 32
_LARGEST = 2**63 - 1


class Cursor:
    """A position in some bytes; every read is checked against what is left."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self.data = memoryview(data)
        self.position = 0

    @property
    def left(self) -> int:
        """Returns the number of bytes not yet read."""
        return len(self.data) - self.position

    def take(self, size: int, what: str) -> memoryview:
        """Return the next bytes without copying them."""
        if not 0 <= size <= self.left:
            raise ValueError(
                f"truncated at byte {self.position}: {what} must have {size} bytes, "
                f"got {self.left}."
            )
        start, self.position = self.position, self.position + size
        return self.data[start : self.position]

    def number(self, kind: str, what: str) -> Any:
        """Return the next number; `kind` is a format of `struct`, such as `"i"` for int32."""
        layout = "<" + kind
        return struct.unpack(layout, self.take(struct.calcsize(layout), what))[0]

    def end(self, what: str) -> None:
        """Raise for bytes after the end."""
        if self.left:
            raise ValueError(
                f"{what} must end at byte {self.position}, got {self.left} bytes more."
            )


def check_shape(shape: Sequence[int], itemsize: int, what: str) -> None:
    """Raise for a shape that no array can have, empty or not."""
    extent = math.prod(max(dim, 1) for dim in shape) * itemsize
    if len(shape) > MAX_NDIM or any(dim < 0 for dim in shape) or extent > _LARGEST:
        raise ValueError(f"{what} must have the shape of an array, got {tuple(shape)}.")


def array_of(data: memoryview, dtype: np.dtype[Any], shape: Sequence[int], what: str) -> Any:
    """Interprets bytes, without copying, as an array in C order that takes all of them."""
    check_shape(shape, dtype.itemsize, what)
    size = math.prod(shape) * dtype.itemsize
    if size != len(data):
        raise ValueError(
            f"{what} of shape {tuple(shape)} and dtype {dtype} must have {size} bytes, "
            f"got {len(data)}."
        )
    if dtype == np.bool_:
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape)
    return np.frombuffer(data, dtype).reshape(shape)


V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DENSE, ROW_SPARSE, CSR_ = 0, 1, 2

# In the order of MXNet's codes.
DTYPES: tuple[np.dtype[Any], ...] = tuple(
    np.dtype(kind)
    for kind in (
        *("float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool"),
        *("int16", "uint16", "uint32", "uint64", jnp.bfloat16),
    )
)
_FIRST_OF_2 = DTYPES.index(np.dtype("int16"))
_LAST_OF_2 = DTYPES.index(np.dtype("uint64"))
_INDEX_DTYPES = (np.dtype("int64"), np.dtype("int32"))


class CSR(NamedTuple):
    """A matrix in compressed sparse rows: MXNet's `csr`.

    Attributes:
        data: shape `(k,)`, the values, row after row.
        indices: integers, shape `(k,)`, the column of each value.
        indptr: integers, shape `(rows + 1,)`: row i has the values `indptr[i]` to
            `indptr[i + 1]`.
        shape: of the matrix.
    """

    data: Any
    indices: Any
    indptr: Any
    shape: tuple[int, int]


def read_array(cursor: Cursor) -> tuple[Any, bool]:
    """Read one array.

    Returns:
        A NumPy array over the given bytes, a `RowSparse` or `CSR` of such arrays, or None for
        an array that was never given a shape; and whether it was written with MXNet's `np_shape`
        on, which is the default of MXNet 2.

    Raises:
        ValueError: the bytes are not those of an array.
    """
    magic = cursor.number("I", "an array")
    if magic not in (V2, V3):
        return _read_legacy(cursor, magic), False
    np_shape = magic == V3
    stype = cursor.number("i", "storage type")
    if stype not in (DENSE, ROW_SPARSE, CSR_):
        raise ValueError(f"storage type must be 0, 1 or 2, got {stype}.")
    stored_shape = _read_shape(cursor) if stype else ()
    shape = _read_shape(cursor, unknown=np_shape)
    if shape is None or (not np_shape and not shape):
        return None, np_shape
    dtype = _read_device_and_dtype(cursor)
    if stype == DENSE:
        return _read_data(cursor, dtype, shape, "data"), np_shape
    # Row-sparse arrays have indices, csr arrays indptr and then indices.
    kinds = [(_dtype(cursor, _INDEX_DTYPES), _read_shape(cursor)) for _ in range(stype)]
    data = _read_data(cursor, dtype, stored_shape, "data")
    aux = [_read_data(cursor, kind, extent, "indices") for kind, extent in kinds]
    if stype == ROW_SPARSE:
        return check_row_sparse(aux[0], data, shape), np_shape
    return check_csr(data, aux[1], aux[0], shape), np_shape


def _read_legacy(cursor: Cursor, magic: int) -> Any:
    """Read what MXNet before 1.0 wrote: dense only; the oldest begins with its ndim."""
    if magic == V1:
        shape = _read_shape(cursor) or ()
    elif magic <= MAX_NDIM:
        shape = struct.unpack(f"<{magic}I", cursor.take(4 * magic, "shape"))
    else:
        raise ValueError(f"an array must begin with one of MXNet's magic numbers, got {magic:#x}.")
    if 0 in shape or not shape:
        return None
    return _read_data(cursor, _read_device_and_dtype(cursor), shape, "data")


def _read_shape(cursor: Cursor, unknown: bool = False) -> Any:
    """Read a shape; None for an unknown one, where that may be."""
    ndim = cursor.number("i", "ndim")
    if unknown and ndim == -1:
        return None
    if not 0 <= ndim <= MAX_NDIM:
        raise ValueError(f"ndim must be in [0, {MAX_NDIM}], got {ndim}.")
    shape = struct.unpack(f"<{ndim}q", cursor.take(8 * ndim, "shape"))
    if unknown and -1 in shape:
        return None
    check_shape(shape, 1, "an array")
    return shape


def _read_device_and_dtype(cursor: Cursor) -> np.dtype[Any]:
    cursor.take(8, "device")
    return _dtype(cursor, DTYPES)


def _dtype(cursor: Cursor, allowed: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
    code = cursor.number("i", "dtype")
    if not 0 <= code < len(DTYPES) or DTYPES[code] not in allowed:
        names = ", ".join(f"{DTYPES.index(kind)} ({kind})" for kind in allowed)
        raise ValueError(f"dtype must be one of {names}, got {code}.")
    return DTYPES[code]


def _read_data(cursor: Cursor, dtype: np.dtype[Any], shape: Any, what: str) -> Any:
    size = math.prod(shape) * dtype.itemsize
    return array_of(cursor.take(size, f"{what} of shape {shape}"), dtype, shape, what)


def check_row_sparse(indices: Any, values: Any, shape: Any) -> RowSparse:
    """Make a `RowSparse` of NumPy arrays if it is one that MXNet could have."""
    if not shape or indices.ndim != 1 or values.shape != (len(indices), *shape[1:]):
        raise ValueError(
            f"row_sparse values must have shape {(indices.size, *shape[1:])} for {indices.size} "
            f"indices into shape {shape}, got {values.shape}."
        )
    _check_range(indices, shape[0])
    if (np.diff(indices) <= 0).any():
        raise ValueError("row_sparse indices must be increasing.")
    # The bytes of the file themselves, on no device.
    return RowSparse.tree_unflatten((tuple(shape), indices.dtype.name), (indices, values))


def check_csr(data: Any, indices: Any, indptr: Any, shape: Any) -> CSR:
    """Make a `CSR` of NumPy arrays if it is one that MXNet could have."""
    if len(shape) != 2 or indptr.shape != (shape[0] + 1,):
        raise ValueError(
            f"csr must be a matrix with an indptr for each row and one more, got shape {shape} "
            f"and {indptr.size}."
        )
    if data.ndim != 1 or data.shape != indices.shape:
        raise ValueError(f"csr data must have shape {indices.shape}, got {data.shape}.")
    _check_range(indices, shape[1])
    _check_range(indptr, len(data) + 1)
    if indptr[0] != 0 or indptr[-1] != len(data) or (np.diff(indptr) < 0).any():
        raise ValueError(f"csr indptr must rise from 0 to {len(data)}.")
    return CSR(data, indices, indptr, tuple(shape))


def _check_range(indices: Any, end: int) -> None:
    if indices.dtype.kind != "i":
        raise ValueError(f"indices must be signed integers, got {indices.dtype}.")
    outside = (indices < 0) | (indices >= end)
    if outside.any():
        raise ValueError(f"indices must be in [0, {end}), got {int(indices[outside][0])}.")


def write_array(array: Any, np_shape: bool, what: str) -> bytes:
    """Return the bytes of one array.

    Args:
        array: a JAX or NumPy array, `RowSparse`, `CSR`, or None.
        np_shape: as MXNet 2 writes, else as MXNet 1 does by default; each refuses the other's.
        what: the array's name, for errors.

    Raises:
        ValueError: that MXNet has no such array.
        TypeError: it is not an array.
    """
    start = struct.pack("<I", V3 if np_shape else V2)
    if array is None:
        return start + struct.pack("<ii", DENSE, -1 if np_shape else 0)
    if isinstance(array, (RowSparse, CSR)):
        if np_shape:
            raise ValueError(
                f"{what} must be dense with np_shape=True, got {type(array).__name__}."
            )
        return start + _write_sparse(array, what)
    data = np.asarray(array)
    code = _code(data.dtype, np_shape, what)
    if not np_shape and data.ndim == 0:
        raise ValueError(f"{what} must have dimensions with np_shape=False, got none.")
    return b"".join(
        (
            start,
            struct.pack("<i", DENSE),
            _shape_bytes(data.shape),
            struct.pack("<iii", 1, 0, code),
            _data_bytes(data),
        )
    )


def _write_sparse(array: RowSparse | CSR, what: str) -> bytes:
    if isinstance(array, RowSparse):
        stype, (indices, data) = ROW_SPARSE, _summed(array)
        aux = [check_row_sparse(indices, data, array.shape).indices]
    else:
        stype, data = CSR_, np.asarray(array.data)
        aux = [np.asarray(array.indptr), np.asarray(array.indices)]
        check_csr(data, aux[1], aux[0], array.shape)
    aux = [indices.astype(np.int64) for indices in aux]
    kinds = (struct.pack("<i", DTYPES.index(i.dtype)) + _shape_bytes(i.shape) for i in aux)
    return b"".join(
        (
            struct.pack("<i", stype),
            _shape_bytes(data.shape),
            _shape_bytes(array.shape),
            struct.pack("<iii", 1, 0, _code(data.dtype, False, what)),
            *kinds,
            _data_bytes(data),
            *map(_data_bytes, aux),
        )
    )


def _summed(array: RowSparse) -> tuple[Any, Any]:
    """Return sorted indices without duplicates, and their values."""
    values = np.asarray(array.values)
    indices, position = np.unique(np.asarray(array.indices), return_inverse=True)
    summed = np.zeros((len(indices), *values.shape[1:]), values.dtype)
    np.add.at(summed, position, values)
    return indices, summed


def _code(dtype: np.dtype[Any], np_shape: bool, what: str) -> int:
    native = dtype.newbyteorder("=")
    if native not in DTYPES:
        raise TypeError(f"{what} must be an array of numbers or bools, got dtype {dtype}.")
    code = DTYPES.index(native)
    if not np_shape and _FIRST_OF_2 <= code <= _LAST_OF_2:
        raise ValueError(f"{what} must be of a dtype that MXNet 1 has, got {dtype}.")
    return code


def _shape_bytes(shape: Sequence[int]) -> bytes:
    return struct.pack(f"<i{len(shape)}q", len(shape), *shape)


def _data_bytes(data: Any) -> bytes:
    little = data.dtype.newbyteorder("<") if data.dtype.byteorder == ">" else data.dtype
    return np.ascontiguousarray(data, little).tobytes()
