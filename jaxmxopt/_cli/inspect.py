"""What a file of states or weights holds, for people to read: ours and MXNet's."""

import contextlib
import os
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO, NamedTuple

import jax
import numpy as np

from jaxmxopt._cli.progress import Progress, read_whole
from jaxmxopt._core.config import Config
from jaxmxopt._core.paths import path_name
from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._files import npz as _npz
from jaxmxopt._files.records import from_record
from jaxmxopt._files.zip import FileError
from jaxmxopt._mxnet.ndarray import CSR
from jaxmxopt._mxnet.params import read_params
from jaxmxopt._mxnet.record import MXNetRecord
from jaxmxopt._mxnet.states import read_states

__all__ = ["Item", "Summary", "is_ours", "lines", "printable", "summary"]

_CHUNK = 2**20


class Item(NamedTuple):
    """One array or number of a file."""

    name: str
    shape: str
    dtype: str
    norm: str
    nonfinite: str


class Summary(NamedTuple):
    """What a file is, and what it holds, which is read as it is asked for."""

    facts: list[tuple[str, str]]
    items: Iterator[Item]


def lines(path: str) -> Iterator[str]:
    """What to print of a file.

    Raises:
        ValueError: it is of no kind known here, or damaged.
        OSError: it cannot be read.
    """
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        facts, items = summary(path, file, size)
        with _named(path):
            rows = [Item(*map(printable, item)) for item in items]
    facts = [(printable(name), printable(text)) for name, text in facts]
    width = max(len(name) for name, _ in facts)
    yield from (f"{name:<{width}}  {text}" for name, text in facts)
    yield ""
    table = [Item("name", "shape", "dtype", "norm", "non-finite"), *rows]
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    for row in table:
        name, shape, dtype, norm, bad = (
            cell.rjust(width) if column == 3 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield f"{name}  {shape}  {dtype}  {norm}  {bad}".rstrip()
    culprits = [row.name for row in rows if row.nonfinite not in ("0", "")]
    yield ""
    ending = f", {len(culprits)} with NaN or infinity, first {culprits[0]!r}" if culprits else ""
    yield f"{len(rows)} entries, {size:,} bytes{ending}"


def printable(text: str) -> str:
    """A text of a file's without what a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def is_ours(file: BinaryIO) -> bool:
    """Whether a file says that it is one of ours, right or damaged."""
    file.seek(0)
    start = file.read(4)
    end = max(file.seek(0, os.SEEK_END) - 2**16, 0)
    file.seek(end)
    tail = file.read()
    file.seek(0)
    return start == b"PK\x03\x04" and b"header.json" in tail


def summary(path: str, file: BinaryIO, size: int) -> Summary:
    """Finds out what a file is.

    Args:
        path: for messages.
        file: opened for reading; the items are read from it later.
        size: of the file in bytes.
    """
    if is_ours(file):
        with _named(path):
            return _of_ours(_npz.Reader(file), size)
    data = read_whole(file, size, "reading")
    try:
        return _of_mxnet(data)
    except ValueError as error:
        raise ValueError(f"{path}: is no file of jaxmxopt or MXNet, or damaged: {error}") from None


@contextlib.contextmanager
def _named(path: str) -> Generator[None]:
    """Adds to an error which file it was."""
    try:
        yield
    except FileError as error:
        raise ValueError(f"{path}: {error}") from None


def is_params(data: bytes) -> bool:
    """Whether a file of MXNet begins as one of arrays does, not as a pickle of states."""
    return data.startswith((b"PK", b"\x93NUMPY", b"\x12\x01\0\0\0\0\0\0"))


def _of_mxnet(data: bytes) -> Summary:
    if is_params(data):
        params = read_params(data)
        how = "by name" if isinstance(params, dict) else "in a list"
        return Summary([("kind", f"arrays of MXNet, {how}")], _items(params))
    found = read_states(data)
    facts = [("kind", f"optimizer states of MXNet {found.version}")]
    if found.optimizer is not None:
        facts.append(("optimizer", f"{found.optimizer.module}.{found.optimizer.name}"))
        facts += [(f"  {key}", text) for key, text in _attributes(found.optimizer.attributes)]
    return Summary(facts, _items(found.states))


def _of_ours(reader: _npz.Reader, size: int) -> Summary:
    header = reader.header
    kind = {"tree": "a tree", "updater": "an Updater or Trainer"}.get(str(header.get("kind")), "?")
    facts = [
        ("kind", f"{kind}, by {header.get('writer', '?')}, format {header['version']}"),
        ("optimizer", str(header.get("algorithm") or "not recorded")),
    ]
    if header.get("definition") is not None:
        facts += [(f"  {key}", text) for key, text in _hyperparameters(header["definition"])]
    if (counts := header.get("counts")) is not None:
        counted = from_record(counts, "counts")
        if not isinstance(counted, dict):
            raise FileError("is damaged: counts.")
        facts.append(("updates", str(counted.get("num_update", "?"))))
    return Summary(facts, _items_of_ours(reader, size))


def _hyperparameters(record: Any) -> Iterator[tuple[str, str]]:
    fields = record.get("fields", {}) if isinstance(record, dict) else None
    if not isinstance(fields, dict):
        raise FileError("is damaged: the optimizer.")
    for key, value in fields.items():
        try:
            said = from_record(value, key)
        except FileError:
            # A function, or a class of somebody's own.
            said = value
        if said is not None:
            yield key, repr(said) if isinstance(said, Config) else _short(said)


def _attributes(attributes: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in attributes.items():
        if isinstance(value, MXNetRecord):
            said = ", ".join(f"{name}={_short(part)}" for name, part in value.attributes.items())
            yield key, f"{value.name}({said})"
        elif value is not None:
            yield key, _short(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _items_of_ours(reader: _npz.Reader, size: int) -> Iterator[Item]:
    values, keys = reader.mapping("values"), reader.mapping("keys")
    with Progress("reading", size) as progress:
        for name, record in reader.arrays.items():
            array = reader.array(name)
            if name in keys:
                yield Item(name, str(tuple(record["shape"][:-1])), f"key<{keys[name]}>", "", "")
            else:
                yield _item(name, array)
            progress.add(array.nbytes)
    for name, value in values.items():
        yield Item(name, "", type(value).__name__, _short(value), "")


def _items(tree: Any) -> Iterator[Item]:
    """The leaves of what MXNet saved."""
    special = (RowSparse, CSR, type(None))
    is_leaf = lambda node: isinstance(node, special)  # noqa: E731
    # An index may be a number or a name, which do not sort together.
    for index, state in tree.items() if isinstance(tree, dict) else enumerate(tree):
        for path, leaf in jax.tree_util.tree_flatten_with_path(state, is_leaf=is_leaf)[0]:
            name = "/".join(filter(None, (str(index), path_name(path))))
            if leaf is None:
                yield Item(name, "", "none", "", "")
            elif isinstance(leaf, RowSparse):
                form = f" in {len(leaf.indices)} rows"
                yield _item(name, np.asarray(leaf.values), leaf.shape, form)
            elif isinstance(leaf, CSR):
                form = f" in {len(leaf.data)} elements"
                yield _item(name, np.asarray(leaf.data), leaf.shape, form)
            else:
                yield _item(name, np.asarray(leaf))


def _item(
    name: str, array: np.ndarray, shape: tuple[int, ...] | None = None, form: str = ""
) -> Item:
    squares, nan, inf = 0.0, 0, 0
    flat = array.reshape(-1)
    real = not np.issubdtype(array.dtype, np.complexfloating)
    with np.errstate(all="ignore"):
        for start in range(0, flat.size, _CHUNK):
            part = flat[start : start + _CHUNK]
            part = part.astype(np.float64) if real else np.abs(part).astype(np.float64)
            squares += float(np.dot(part, part))
            nan += int(np.isnan(part).sum())
            inf += int(np.isinf(part).sum())
    bad = ", ".join(f"{count} {what}" for count, what in ((nan, "NaN"), (inf, "inf")) if count)
    shown = array.shape if shape is None else shape
    return Item(name, f"{shown}{form}", array.dtype.name, f"{np.sqrt(squares):.6g}", bad or "0")
