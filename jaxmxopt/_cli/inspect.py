"""Describe files, and the installation."""

import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, TextIO

import jax
import numpy as np

from jaxmxopt._core import __version__
from jaxmxopt._core.config import Config
from jaxmxopt._core.names import path_name
from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._files.archive import Reader
from jaxmxopt._files.codec import Decoder, arrays_in
from jaxmxopt._files.files import naming
from jaxmxopt._mxnet.ndarray import CSR
from jaxmxopt._mxnet.params import read_params
from jaxmxopt._mxnet.record import MXNetRecord
from jaxmxopt._mxnet.states import read_states

__all__ = [
    "Item",
    "Progress",
    "Summary",
    "info",
    "is_ours",
    "lines",
    "printable",
    "read_whole",
    "summary",
]

# Less than this is done before one has read the bar.
LARGE = 64 * 2**20
_WIDTH = 30
_SECONDS_BETWEEN = 0.1


class Progress:
    """Shows how many bytes of a total are done, on a terminal alone, and only for many.

    Args:
        label: what is being done.
        total: in bytes.
        stream: where to show it; standard error by default.
    """

    def __init__(self, label: str, total: int, stream: TextIO | None = None) -> None:
        self._label, self._total = label, total
        self._stream = sys.stderr if stream is None else stream
        self._shown = total >= LARGE and self._stream.isatty()
        self._done, self._last = 0, 0.0

    def add(self, count: int) -> None:
        """Count further bytes."""
        self._done += count
        now = time.monotonic()
        if self._shown and now - self._last >= _SECONDS_BETWEEN:
            self._last = now
            share = min(self._done / self._total, 1.0)
            bar = "█" * round(share * _WIDTH)
            text = f"\r{self._label} {bar:·<{_WIDTH}} {share:4.0%} of {self._total / 1e6:,.0f} MB"
            self._stream.write(text)
            self._stream.flush()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._shown and self._last:
            # Clears the line.
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def read_whole(file: BinaryIO, size: int, label: str) -> bytes:
    """Read a file of a known size under a bar."""
    data = bytearray()
    with Progress(label, size) as progress:
        while part := file.read(16 * 2**20):
            data += part
            progress.add(len(part))
    return bytes(data)


_CHUNK = 2**20


class Item(NamedTuple):
    """One array or number of a file."""

    name: str
    shape: str
    dtype: str
    norm: str
    nonfinite: str


class Summary(NamedTuple):
    """The kind of a file, and its content, which is read when it is asked for."""

    facts: list[tuple[str, str]]
    items: Iterator[Item]


def lines(path: str) -> Iterator[str]:
    """Return what to print of a file.

    Raises:
        ValueError: it is of no kind known here, or damaged.
        OSError: it cannot be read.
    """
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        facts, items = summary(path, file, size)
        with naming(path):
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
    """Return a text of a file's without what a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def is_ours(file: BinaryIO) -> bool:
    """True if a file says that it is one of ours, right or damaged."""
    file.seek(0)
    start = file.read(4)
    end = max(file.seek(0, os.SEEK_END) - 2**16, 0)
    file.seek(end)
    tail = file.read()
    file.seek(0)
    return start == b"PK\x03\x04" and b"header.json" in tail


def summary(path: str, file: BinaryIO, size: int) -> Summary:
    """Find out what a file is.

    Args:
        path: for messages.
        file: opened for reading; the items are read from it later.
        size: of the file in bytes.
    """
    if is_ours(file):
        with naming(path):
            return _of_ours(Reader(file), size)
    data = read_whole(file, size, "reading")
    try:
        return _of_mxnet(data)
    except ValueError as error:
        raise ValueError(f"{path}: is no file of jaxmxopt or MXNet, or damaged: {error}") from None


def is_params(data: bytes) -> bool:
    """True if a file of MXNet begins as one of arrays does, not as a pickle of states."""
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


def _of_ours(reader: Reader, size: int) -> Summary:
    header = reader.header
    kind = {"tree": "a tree", "updater": "an Updater or Trainer"}.get(str(header.get("kind")), "?")
    facts = [
        ("kind", f"{kind}, by {header.get('writer', '?')}, format {header['version']}"),
        ("optimizer", str(header.get("algorithm") or "not recorded")),
    ]
    if header.get("definition") is not None:
        said = _hyperparameters(header["definition"], reader)
        facts += [(f"  {key}", text) for key, text in said]
    if (counts := header.get("counts")) is not None:
        counted = Decoder(reader.leaf).decode(counts, "counts")
        if not isinstance(counted, dict):
            raise ValueError("is damaged: counts.")
        facts.append(("updates", str(counted.get("num_update", "?"))))
    return Summary(facts, _items_of_ours(reader, size))


def _hyperparameters(record: Any, reader: Reader) -> Iterator[tuple[str, str]]:
    fields = record.get("fields", {}) if isinstance(record, dict) else None
    if not isinstance(fields, dict):
        raise ValueError("is damaged: the optimizer.")
    for key, value in fields.items():
        try:
            said = Decoder(reader.array).decode(value, key)
        except ValueError:
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


def _items_of_ours(reader: Reader, size: int) -> Iterator[Item]:
    kept = [reader.header.get(part) for part in ("leaves", "states", "more")]
    values = {} if kept[0] is None else kept[0]
    if not isinstance(values, dict):
        raise ValueError("is damaged: leaves in its header.")
    with Progress("reading", size) as progress:
        for record in arrays_in(kept):
            array, name = reader.array(record), record["array"]
            if "key" in record:
                yield Item(name, str(array.shape[:-1]), f"key<{record['key']}>", "", "")
            else:
                yield _item(name, array)
            progress.add(array.nbytes)
    for name, value in values.items():
        if not isinstance(value, dict):
            yield Item(name, "", type(value).__name__, _short(value), "")


def _items(tree: Any) -> Iterator[Item]:
    """Return the leaves of what MXNet saved."""
    special = (RowSparse, CSR, type(None))
    # An index may be a number or a name, which do not sort together.
    for index, state in tree.items() if isinstance(tree, dict) else enumerate(tree):
        leaves, _ = jax.tree_util.tree_flatten_with_path(
            state, is_leaf=lambda node: isinstance(node, special)
        )
        for path, leaf in leaves:
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


# The extras of pyproject.toml that change what works.
_EXTRAS = ("optax", "flax", "equinox", "orbax-checkpoint", "torch")


def info() -> Iterator[str]:
    """Return the lines to print: versions, devices, settings, and what else is installed."""
    facts = {
        "jaxmxopt": __version__,
        "jax": jax.__version__,
        "jaxlib": _version("jaxlib"),
        "numpy": np.__version__,
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        "devices": _devices(),
        "64-bit types": "on" if jax.config.read("jax_enable_x64") else "off",
        **{f"extra {name}": _version(name) for name in _EXTRAS},
    }
    width = max(map(len, facts))
    return (f"{name:<{width}}  {said}" for name, said in facts.items())


def _devices() -> str:
    try:
        devices = jax.devices()
    except RuntimeError as error:
        # A report about a broken installation must be possible too.
        return f"none: {error}"
    kinds = [device.device_kind for device in devices]
    counts = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
    return f"{counts} ({jax.default_backend()})"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
