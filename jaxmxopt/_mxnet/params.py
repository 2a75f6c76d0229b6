"""Lists and dicts of arrays: `.params` files, in MXNet's own format, as `.npz` and as `.npy`."""

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmxopt._mxnet.ndarray import (
    DTYPES,
    Cursor,
    array_of,
    check_csr,
    check_row_sparse,
    read_array,
    write_array,
)

__all__ = ["read_params", "write_params"]

_MAGIC = 0x112
_OWN = struct.pack("<Q", _MAGIC)
_ZIP, _ZIP_EMPTY, _NPY = b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY"

# What MXNet 2 writes for what NumPy lacks.
_BFLOAT16 = np.dtype([("bfloat16", "<u2")])
# What a header may have of its Python literal, which is parsed: enough for any shape.
_LONGEST = 2000
_ROW_SPARSE = {"data", "indices", "format", "shape"}
_CSR = _ROW_SPARSE | {"indptr"}


def read_params(data: bytes) -> list[Any] | dict[str, Any]:
    """Read a file of arrays.

    Returns:
        A list, or a dict by name where the file has names: NumPy arrays over the given bytes,
        `RowSparse` or `CSR` of such, or None.

    Raises:
        ValueError: it is not such a file, or damaged.
    """
    if data.startswith((_ZIP, _ZIP_EMPTY)):
        return _read_zip(data)
    if data.startswith(_NPY):
        return [_read_npy(memoryview(data), "the array")]
    cursor = Cursor(data)
    if not data.startswith(_OWN[: max(len(data), 1)]):
        raise ValueError(
            f"this is no .params file: it must begin with the number {_MAGIC:#x}, PK or "
            f"\\x93NUMPY, got {data[:8]!r}."
        )
    cursor.take(8, "magic number")
    cursor.take(8, "header")
    arrays = [read_array(cursor)[0] for _ in range(_count(cursor, 4, "number of arrays"))]
    count = _count(cursor, 8, "number of names")
    if count not in (0, len(arrays)):
        raise ValueError(f"there must be no names or {len(arrays)}, got {count}.")
    names = [_name(cursor) for _ in range(count)]
    cursor.end("the file")
    return _by_name(names, arrays) if names else arrays


def _count(cursor: Cursor, least: int, what: str) -> int:
    """Read how many items follow, each of some bytes at least."""
    count = cursor.number("Q", what)
    if count * least > cursor.left:
        raise ValueError(f"{what} must fit into the {cursor.left} bytes left, got {count}.")
    return count


def _name(cursor: Cursor) -> str:
    size = cursor.number("Q", "length of a name")
    return str(cursor.take(size, "a name"), "utf-8")


def _by_name(names: Sequence[str], arrays: Sequence[Any]) -> dict[str, Any]:
    named = dict(zip(names, arrays, strict=True))
    if len(named) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"names must differ, got {twice!r} twice.")
    return named


def _read_zip(data: bytes) -> dict[str, Any]:
    """Read the archive that MXNet 2 writes: one `.npy` an array, a folder a sparse one."""
    files = {
        name.removesuffix(".npy"): content
        for name, content in _zip_members(data)
        if name.endswith(".npy")
    }
    folders: dict[str, set[str]] = {}
    for name in files:
        folder, _, file = name.rpartition("/")
        folders.setdefault(folder, set()).add(file)
    arrays: dict[str, Any] = {}
    for folder, names in folders.items():
        inside = {name: f"{folder}/{name}" if folder else name for name in names}
        if folder and names in (_ROW_SPARSE, _CSR):
            arrays[folder] = _read_sparse({name: files[path] for name, path in inside.items()})
        else:
            arrays |= {path: _read_npy(files[path], repr(path)) for path in inside.values()}
    return arrays


def _zip_members(data: bytes) -> list[tuple[str, memoryview]]:
    """Return the files of an archive; only what MXNet writes: not compressed, none twice."""
    # What zipfile raises for damaged files is many things, and not documented.
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("the files of the archive must not be compressed.")
            if sum(entry.file_size for entry in entries) > len(data):
                raise ValueError("the files of the archive must not overlap.")
            if len({entry.filename for entry in entries}) < len(entries):
                raise ValueError("the files of the archive must have different names.")
            return [(entry.filename, memoryview(archive.read(entry))) for entry in entries]
    except Exception as error:
        raise ValueError(f"not a whole .npz archive: {error}") from None


def _read_sparse(files: Mapping[str, memoryview]) -> Any:
    shape = _read_npy(files["shape"], "shape")
    if shape.dtype not in (np.int64, np.int32) or shape.ndim != 1:
        raise ValueError(f"shape must be a vector of integers, got {shape.dtype} {shape.shape}.")
    indices, values = (_read_npy(files[name], name) for name in ("indices", "data"))
    # The header of this file is broken in MXNet 2; its text stands at the end.
    name = bytes(files["format"][-10:])
    extent = tuple(shape.tolist())
    if "indptr" not in files and name == b"row_sparse":
        return check_row_sparse(indices, values, extent)
    if "indptr" in files and name.endswith(b"csr"):
        indptr = _read_npy(files["indptr"], "indptr")
        return check_csr(values, indices, indptr, extent)
    raise ValueError(f"a sparse array must be row_sparse or csr, got {name!r}.")


def _read_npy(data: memoryview, what: str) -> Any:
    stream = io.BytesIO(data[: _LONGEST + 20])
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(stream, max_header_size=_LONGEST)
    except Exception as error:
        raise ValueError(f"{what} must be a .npy file of an array: {error!s:.200}") from None
    dtype = np.dtype(jnp.bfloat16) if dtype == _BFLOAT16 else dtype
    if dtype not in DTYPES:
        raise ValueError(f"{what} must be an array of numbers, got dtype {dtype!s:.200}.")
    content = data[stream.tell() :]
    array = array_of(content, dtype, shape[::-1] if fortran else shape, what)
    return array.T if fortran else array


def write_params(params: Mapping[str, Any] | Sequence[Any], np_shape: bool) -> bytes:
    """Return the bytes of a file of arrays in MXNet's own format.

    Raises:
        ValueError: MXNet has no such array.
        TypeError: a name is not a string, or something is not an array.
    """
    named = isinstance(params, Mapping)
    names = list(params) if named else []
    if any(not isinstance(name, str) for name in names):
        raise TypeError(f"names must be strings, got {names!r:.200}.")
    arrays = list(params.values() if named else params)
    labels = [repr(name) for name in names] or [f"array {i}" for i in range(len(arrays))]
    parts = [struct.pack("<QQQ", _MAGIC, 0, len(arrays))]
    parts += [write_array(a, np_shape, label) for a, label in zip(arrays, labels, strict=True)]
    parts.append(struct.pack("<Q", len(names)))
    for name in names:
        text = name.encode()
        parts += [struct.pack("<Q", len(text)), text]
    return b"".join(parts)
