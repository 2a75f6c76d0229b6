"""The container of our files: named arrays and a JSON header in an `.npz`, checked throughout.

Arrays are stored uncompressed as `.npy` members, dtypes that NumPy's format lacks as unsigned
integers of the same width. The last member, `header.json`, holds name, dtype, shape and CRC-32 of
each. A file is a function of its content, to the byte: anything else is refused.
"""

import json
import math
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

from jaxmxopt._files import zip as _zip
from jaxmxopt._files.zip import FileError

__all__ = ["VERSION", "Reader", "dtype_named", "is_storable", "write"]

VERSION = 1
_MAGIC = "jaxmxopt"
_HEADER = "header.json"
_FOREIGN = "is not a state file of jaxmxopt"
# How deep lists and objects of a header go at most: readers recurse.
_DEEPEST = 100
# All that JAX has, bfloat16, float8 and integers of fewer than eight bits among them.
_DTYPES = {
    np.dtype(kind).name: np.dtype(kind)
    for kind in vars(jnp).values()
    if isinstance(kind, type(jnp.float32))
}


def is_storable(dtype: np.dtype[Any]) -> bool:
    """Whether a file can hold arrays of this dtype."""
    return dtype.name in _DTYPES


def dtype_named(name: str) -> np.dtype[Any]:
    """The dtype of this name."""
    if name not in _DTYPES:
        raise FileError(f"dtype {name!r} is unknown.")
    return _DTYPES[name]


def _storage(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What an array of this dtype is stored as."""
    native = dtype.isbuiltin == 1
    return (dtype if native else np.dtype(f"u{dtype.itemsize}")).newbyteorder("<")


def write(file: BinaryIO, header: Mapping[str, Any], arrays: Iterable[tuple[str, Any]]) -> None:
    """Writes a file.

    Args:
        file: opened for writing.
        header: what JSON can say; `"arrays"` and the format are added.
        arrays: names, all different, and NumPy arrays, all `is_storable`.

    Raises:
        FileError: the header nests too deeply to be read again.
    """
    if _nests_deeper(header, _DEEPEST):
        raise FileError(f"must not nest more than {_DEEPEST} deep in its header.")
    archive = _zip.Writer(file)
    records = [_write_array(archive, name, array) for name, array in arrays]
    whole = {"format": _MAGIC, "version": VERSION, **header, "arrays": records}
    archive.add(_HEADER, json.dumps(whole, indent=1).encode("ascii"))
    archive.close()


def _write_array(archive: _zip.Writer, name: str, array: np.ndarray) -> dict[str, Any]:
    dtype = _DTYPES[array.dtype.name]
    stored = np.ascontiguousarray(array.astype(dtype, copy=False)).reshape(-1)
    stored = stored if dtype.isbuiltin == 1 else stored.view(f"u{dtype.itemsize}")
    stored = stored.astype(_storage(dtype), copy=False)
    prefix = _npy_prefix(dtype, array.shape)
    member = archive.add(_member_name(name), prefix, stored.view(np.uint8).data)
    return {
        "name": name,
        "member": member.name,
        "dtype": dtype.name,
        "shape": list(array.shape),
        "crc32": member.crc32,
    }


def _npy_prefix(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The beginning of a `.npy`: made, never parsed, as its form is a Python literal."""
    descr = np.lib.format.dtype_to_descr(_storage(dtype))
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    # The data begins at a multiple of 64 bytes, a line end before it.
    length = -(-(len(text) + 11) // 64) * 64 - 10
    return b"\x93NUMPY\1\0" + length.to_bytes(2, "little") + f"{text:{length - 1}}\n".encode()


def _member_name(name: str) -> str:
    """A name that is harmless as a path too, different for different names."""
    parts = urllib.parse.quote(name, safe="/ ()[]<>,:", errors="surrogatepass").split("/")
    # Neither empty parts nor `.` and `..`.
    safe = (part if part.strip(".") else "%" + part.replace(".", "%2E") for part in parts)
    return "/".join(safe) + ".npy"


class Reader:
    """A file opened for reading, its header checked.

    Args:
        file: opened for reading, able to seek.

    Attributes:
        header: the header.
        arrays: what the header says of each array, by name.

    Raises:
        FileError: the file is not one of ours, damaged, or of a newer format.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        members = _zip.members(file)
        if not members or members[-1].name != _HEADER:
            raise FileError(f"{_FOREIGN}: it has no {_HEADER}.")
        self.header = _parsed(_zip.read(file, members.pop()))
        records = self.header["arrays"]
        self._members = {member.name: member for member in members}
        self.arrays = {record["name"]: record for record in records}
        if len(self._members) != len(members) or len(self.arrays) != len(records):
            raise FileError("is damaged: names repeat.")
        if [member.name for member in members] != [record["member"] for record in records]:
            raise FileError("is damaged: its members are not those that the header lists.")
        for member, record in zip(members, records, strict=True):
            if member.crc32 != record["crc32"]:
                raise FileError(f"is damaged: the checksum of {record['name']!r} differs.")

    def mapping(self, name: str) -> dict[str, Any]:
        """A part of the header that is a mapping by name."""
        found: Any = self.header.get(name)
        if not isinstance(found, dict):
            raise FileError(f"is damaged: {name} in its header.")
        return found

    def array(self, name: str) -> np.ndarray:
        """Reads one array, which cannot be written to."""
        record = self.arrays[name]
        dtype, shape = dtype_named(record["dtype"]), tuple(record["shape"])
        member, prefix = self._members[record["member"]], _npy_prefix(dtype, shape)
        if member.size != len(prefix) + math.prod(shape) * dtype.itemsize:
            raise FileError(f"is damaged: array {name!r} has the wrong size.")
        data = _zip.read(self._file, member)
        if not data.startswith(prefix):
            raise FileError(f"is damaged: array {name!r} is not what the header says.")
        flat = np.frombuffer(data, _storage(dtype), offset=len(prefix))
        native = flat.astype(flat.dtype.newbyteorder("="), copy=False)
        return native.view(dtype).reshape(shape)


def _parsed(text: bytes) -> dict[str, Any]:
    """The header, its form checked."""
    try:
        header: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"is damaged in its header ({error}).") from None
    if _nests_deeper(header, _DEEPEST):
        raise FileError(f"is damaged in its header (it nests more than {_DEEPEST} deep).")
    if not isinstance(header, dict) or header.get("format") != _MAGIC:
        raise FileError(f"{_FOREIGN}.")
    version = header.get("version")
    if type(version) is not int or version < 1:
        raise FileError(f"is damaged: format version {version!r}.")
    if version > VERSION:
        raise FileError(
            f"is of format version {version}, newer than {VERSION}, the newest that this "
            "jaxmxopt reads; upgrade jaxmxopt."
        )
    records = header.get("arrays")
    if not isinstance(records, list) or not all(_is_record(record) for record in records):
        raise FileError("is damaged: the list of arrays.")
    return header


def _nests_deeper(value: Any, most: int) -> bool:
    """Whether lists and objects are within each other more than so many times."""
    level = [value]
    for _ in range(most + 1):
        inside: list[Any] = []
        for node in level:
            if isinstance(node, (dict, list, tuple)):
                inside += node.values() if isinstance(node, dict) else node
        if not inside:
            return False
        level = inside
    return True


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or set(record) != {"name", "member", "dtype", "shape", "crc32"}:
        return False
    texts = (record["name"], record["member"], record["dtype"])
    sizes: Any = record["shape"]
    return (
        all(isinstance(text, str) for text in texts)
        and type(record["crc32"]) is int
        and isinstance(sizes, list)
        and all(type(size) is int and size >= 0 for size in sizes)
    )
