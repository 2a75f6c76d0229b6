"""The container of our files: named arrays and a JSON header in an `.npz`, checked as a whole.

Every array is an uncompressed `.npy`; `header.json` says what they are. The comment of the archive
is the SHA-256 of all bytes before it, which is compared before anything else is read.
"""

import hashlib
import io
import json
import urllib.parse
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np

from jaxmxopt._files.arrays import dtype_named, free_array, stored_dtype

__all__ = [
    "Reader",
    "seal",
    "upgraded",
    "write",
]


def upgraded(header: dict[str, Any]) -> dict[str, Any]:
    """Return the header in the newest format.

    Raises:
        ValueError: it is not of the form of version 1.
    """
    try:
        leaves = _leaves(header)
        if header.get("kind") == "updater":
            states = [[index, _structure(state, leaves)] for index, state in header["states"]]
            more = _structure(header["more"], leaves)
            return {**header, "states": {"map": states}, "more": more}
        nodes = header["nodes"]
        for name, node in nodes.items():
            if node["kind"] == "RowSparse":
                fields = {part: leaves.pop(f"{name}/{part}") for part in ("indices", "values")}
                leaves[name] = _row_sparse({**fields, "shape": node["shape"]})
        slots = {name: node["slots"] for name, node in nodes.items() if node["kind"] == "State"}
        return {**header, "leaves": leaves, "slots": slots}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError("is damaged in its header, which is of format version 1.") from None


def _leaves(header: dict[str, Any]) -> dict[str, Any]:
    """Find what stands under every name: an array or a number."""
    leaves = dict(header["values"])
    for array in header["arrays"]:
        leaf = {"array": array["name"], "dtype": array["dtype"], "shape": array["shape"]}
        key = header["keys"].get(array["name"])
        leaves[array["name"]] = leaf if key is None else {**leaf, "key": key}
    return leaves


def _row_sparse(fields: dict[str, Any]) -> dict[str, Any]:
    return {"class": "RowSparse", "fields": {**fields, "shape": {"tuple": fields["shape"]}}}


def _structure(record: Any, leaves: dict[str, Any]) -> Any:
    """Put the leaves of a state into their places."""
    if record is None:
        return None
    if isinstance(record, str):
        return leaves[record]
    ((kind, parts),) = record.items()
    shape = parts.pop("shape", None) if kind == "RowSparse" else None
    parts = {key: _structure(part, leaves) for key, part in parts.items()}
    if kind in ("tuple", "list"):
        return {kind: list(parts.values())}
    if kind == "dict":
        return {"map": [list(pair) for pair in parts.items()]}
    if kind == "RowSparse":
        return _row_sparse({**parts, "shape": shape})
    return {"class": kind.removeprefix("named "), "fields": parts}


VERSION = 2
_HEADER = "header.json"
# Lists and objects of a header within each other: readers recurse.
_DEEPEST = 100
# What the `.npy` of an array may have as its header, a Python literal: enough for any shape.
_LONGEST = 2000
_PREFIX = b"sha256:"
_SEAL = len(_PREFIX) + hashlib.sha256().digest_size * 2


def write(file: BinaryIO, header: Mapping[str, Any], arrays: Iterable[tuple[str, Any]]) -> None:
    """Write a file.

    Args:
        file: opened for writing and reading, able to seek.
        header: what JSON can hold; the format is added.
        arrays: names, all different, and NumPy arrays of dtypes that `described` takes.

    Raises:
        ValueError: the header nests too deeply to be read again.
    """
    if _nests_deeper(header, _DEEPEST):
        raise ValueError(f"must not nest more than {_DEEPEST} deep in its header.")
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays:
            dtype = dtype_named(array.dtype.name)
            # In the byte order of this machine, in C order, then as it is stored.
            native = np.ascontiguousarray(array.astype(dtype, copy=False)).reshape(array.shape)
            stored = native if dtype.isbuiltin == 1 else native.view(f"u{dtype.itemsize}")
            stored = stored.astype(stored_dtype(dtype), copy=False)
            # Room for the `.npy` header: from the size follows which fields of zip are used.
            size = stored.nbytes + 2**12
            with archive.open(_member(_member_name(name), size), "w") as member:
                np.lib.format.write_array(member, stored, (1, 0), allow_pickle=False)
        text = json.dumps({"format": "jaxmxopt", "version": VERSION, **header})
        archive.writestr(_member(_HEADER, len(text)), text)
        archive.comment = bytes(_SEAL)
    seal(file)


def _member(name: str, size: int) -> zipfile.ZipInfo:
    """Describe a member without a date, so that equal content makes equal files."""
    member = zipfile.ZipInfo(name)
    member.file_size, member.create_system, member.external_attr = size, 3, 0o100644 << 16
    return member


def _member_name(name: str) -> str:
    """Return a name that is harmless as a path too, different for different names."""
    parts = urllib.parse.quote(name, safe="/ ()[]<>,:", errors="surrogatepass").split("/")
    # Neither empty parts nor `.` and `..`.
    safe = (part if part.strip(".") else "%" + part.replace(".", "%2E") for part in parts)
    return "/".join(safe) + ".npy"


def seal(file: BinaryIO) -> None:
    """Write the digest of an archive into the place that its comment keeps for it."""
    end = file.seek(-_SEAL, 2)
    digest = _digest(file, end)
    file.seek(end)
    file.write(digest)


def _digest(file: BinaryIO, end: int) -> bytes:
    """Return the comment for what a file has before `end`."""
    file.seek(0)
    digest, left = hashlib.sha256(), end
    while left and (part := file.read(min(left, 2**20))):
        digest.update(part)
        left -= len(part)
    return _PREFIX + digest.hexdigest().encode()


class Reader:
    """A file opened for reading, checked as a whole.

    Args:
        file: opened for reading, able to seek.

    Attributes:
        header: the header, of an older format as the newest would say it.

    Raises:
        ValueError: the file is not one of ours, damaged, or of a newer format.
    """

    def __init__(self, file: BinaryIO) -> None:
        size = file.seek(0, 2)
        end = max(size - _SEAL, 0)
        file.seek(end)
        found = file.read()
        sealed = found.startswith(_PREFIX)
        if sealed and found != _digest(file, end):
            raise ValueError("is damaged: its bytes differ from their checksum.")
        self._archive, names = _opened(file, size)
        if _HEADER not in names:
            raise ValueError(f"is not a state file of jaxmxopt: it has no {_HEADER}.")
        header = _parsed(self._bytes(_HEADER))
        if header["version"] == 1:
            header = upgraded(header)
        elif not sealed:
            raise ValueError("is truncated, or damaged: it has no checksum.")
        self.header = header

    def _bytes(self, member: str) -> bytes:
        # The exceptions of zipfile for damaged archives are many, and not documented.
        try:
            return self._archive.read(member)
        except Exception as error:
            raise ValueError(f"is damaged in {member!r}: {error}") from None

    def array(self, record: Any) -> np.ndarray:
        """Read the array that a record of the header describes; it cannot be written to."""
        match record:
            case {"array": str(name), "dtype": str(kind), "shape": list(shape)} if all(
                type(size) is int and size >= 0 for size in shape
            ):
                dtype = dtype_named(kind)
            case _:
                raise ValueError("is damaged: an array in its header.")
        stored, data = stored_dtype(dtype), self._bytes(_member_name(name))
        stream = io.BytesIO(data)
        try:
            version = np.lib.format.read_magic(stream)
            found = np.lib.format.read_array_header_1_0(stream, max_header_size=_LONGEST)
        except Exception as error:
            raise ValueError(f"is damaged: array {name!r} ({error}).") from None
        if (version, *found) != ((1, 0), tuple(shape), False, stored):
            raise ValueError(f"is damaged: array {name!r} is not what the header says.")
        try:
            flat = np.frombuffer(data, stored, offset=stream.tell())
            native = flat.astype(flat.dtype.newbyteorder("="), copy=False)
            return native.view(dtype).reshape(shape)
        except ValueError:
            raise ValueError(f"is damaged: array {name!r} has the wrong size.") from None

    def leaf(self, record: Any) -> Any:
        """Read an array for use wherever its weight is: JAX's, or NumPy's if JAX would cut it."""
        host = self.array(record)
        try:
            return free_array(host, record.get("key"))
        except (TypeError, ValueError) as error:
            raise ValueError(f"holds random keys that cannot be made again: {error}") from None


def _opened(file: BinaryIO, size: int) -> tuple[zipfile.ZipFile, set[str]]:
    """Open an archive whose members, all different and as they are stored, fit into the file."""
    try:
        archive = zipfile.ZipFile(file)
    except Exception:
        raise ValueError("is truncated, or no state file of jaxmxopt.") from None
    members = archive.infolist()
    names = {member.filename for member in members}
    if len(names) < len(members):
        raise ValueError("is damaged: its members have equal names.")
    if any(m.compress_type != zipfile.ZIP_STORED or m.compress_size != m.file_size
           for m in members):  # fmt: skip
        raise ValueError("is damaged: its members are compressed.")
    if sum(member.file_size for member in members) > size:
        raise ValueError("is damaged: its members are larger than the file.")
    return archive, names


def _parsed(text: bytes) -> dict[str, Any]:
    """Parse the header and checks its version."""
    try:
        header: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is damaged in its header ({error}).") from None
    if _nests_deeper(header, _DEEPEST):
        raise ValueError(f"is damaged in its header (it nests more than {_DEEPEST} deep).")
    if not isinstance(header, dict) or header.get("format") != "jaxmxopt":
        raise ValueError("is not a state file of jaxmxopt.")
    version = header.get("version")
    if type(version) is not int or version < 1:
        raise ValueError(f"is damaged: format version {version!r}.")
    if version > VERSION:
        raise ValueError(
            f"is of format version {version}, newer than {VERSION}, the newest that this "
            "jaxmxopt reads; upgrade jaxmxopt."
        )
    return header


def _nests_deeper(value: Any, most: int) -> bool:
    """True if lists and objects are within each other more than so many times."""
    level = [value]
    for _ in range(most + 1):
        containers = [node for node in level if isinstance(node, (dict, list, tuple))]
        level = [
            part
            for node in containers
            for part in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return False
    return True
