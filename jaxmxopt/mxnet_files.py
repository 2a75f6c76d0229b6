"""MXNet's files without MXNet: `.params` and `.states`, read as data.

MXNet saves the states of optimizers as pickles, which can run anything when they are loaded. Here
they are read by an interpreter that knows arrays, containers, numbers and text, and refuses all
else by name. Nothing in a file is executed or imported; whatever is wrong with one is a
`ValueError`, and reading takes time and memory in proportion to the file.

Arrays come as JAX arrays. Those of 64 bits stay NumPy arrays while JAX has no 64-bit types
(`jax_enable_x64`), so that nothing is lost.
"""

import contextlib
import os
from collections.abc import Generator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmxopt._atomic import replacing
from jaxmxopt._mxnet._ndarray import CSR as CSR
from jaxmxopt._mxnet._params import read_params, write_params
from jaxmxopt._mxnet._record import MXNetRecord as MXNetRecord
from jaxmxopt._mxnet._states import read_states
from jaxmxopt._sparse import RowSparse

__all__ = ["CSR", "MXNetRecord", "MXNetStates", "load_params", "load_states", "save_params"]

Path = str | os.PathLike[str]
File = Path | bytes | bytearray | memoryview | BinaryIO


class MXNetStates(NamedTuple):
    """What a `.states` file of MXNet holds.

    Attributes:
        states: by the index of the weight, or its name, what MXNet nests there: an array, a
            tuple of arrays and tuples, None. The order in a tuple is MXNet's, which differs
            between its versions and algorithms.
        optimizer: the optimizer that was saved beside them, as data; None if there is none.
    """

    states: dict[int | str, Any]
    optimizer: MXNetRecord | None


def load_params(file: File) -> dict[str, Any] | list[Any]:
    """Reads a `.params` file of `mx.nd.save`, gluon or Module, of MXNet 0.x to 2.

    Args:
        file: a path, a file opened for reading bytes, or the bytes.

    Returns:
        A dict by name, or a list where the file has no names: arrays, `RowSparse`, `CSR`, or None
        for an array that never had a shape. Names are as in the file: Module's begin with
        `arg:` or `aux:`.

    Raises:
        ValueError: it is no such file, or damaged.
        OSError: it cannot be opened.
    """
    data, shown = _read(file)
    with _named(f"mxnet_files.load_params({shown})"):
        return _owned(read_params(data))


def save_params(
    file: Path, params: Mapping[str, Any] | Sequence[Any], *, np_shape: bool = False
) -> None:
    """Writes a `.params` file that MXNet loads.

    Args:
        file: a path. An existing file is replaced, by the whole new one or not at all.
        params: arrays, `RowSparse`, `CSR` or None: by name, or a sequence without names.
        np_shape: write what MXNet 2 reads, and MXNet 1 under `mx.util.np_shape()`. By default
            what MXNet 1 reads, which has no arrays without dimensions, and no integers of 16 bits
            or without sign except uint8.

    Raises:
        ValueError: MXNet has no such array.
        TypeError: something is not an array, or a name is not a string.
        OSError: the file cannot be written.
    """
    with _named(f"mxnet_files.save_params({os.fspath(file)!r})"):
        data = write_params(params, np_shape)
    with replacing(file) as opened:
        opened.write(data)


def load_states(file: File) -> MXNetStates:
    r"""Reads a `.states` file of MXNet's Updater, gluon Trainer or Module, of MXNet 1 or 2.

    Args:
        file: a path, a file opened for reading bytes, or the bytes.

    Returns:
        The states, and the optimizer where it was saved with them.

    Raises:
        ValueError: it is no such file, is damaged, or holds anything but arrays and a known
            optimizer's attributes; other classes and functions in it are named.
        OSError: it cannot be opened.

    Example:
        >>> import pickle
        >>> load_states(pickle.dumps({0: None, "fc_weight": None}))
        MXNetStates(states={0: None, 'fc_weight': None}, optimizer=None)
        >>> load_states(b"cos\nsystem\n(S'ls'\ntR.")
        Traceback (most recent call last):
        ValueError: mxnet_files.load_states(bytes): os.system is refused: ...
    """
    data, shown = _read(file)
    with _named(f"mxnet_files.load_states({shown})"):
        found = read_states(data)
        return MXNetStates(_owned(found.states), _owned(found.optimizer))


def _read(file: File) -> tuple[bytes, str]:
    """The content of a file, and what to call it in messages."""
    if isinstance(file, (bytes, bytearray, memoryview)):
        return bytes(file), "bytes"
    if isinstance(file, (str, os.PathLike)):
        with open(file, "rb") as opened:
            return opened.read(), repr(os.fspath(file))
    content = file.read()
    if not isinstance(content, bytes):
        raise TypeError(f"mxnet_files: file must be opened for reading bytes, got {file!r}.")
    return content, repr(getattr(file, "name", "file"))


@contextlib.contextmanager
def _named(call: str) -> Generator[None]:
    """Puts the name of a call before the messages of the errors in it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{call}: {error}") from None
    except TypeError as error:
        raise TypeError(f"{call}: {error}") from None


def _owned(tree: Any) -> Any:
    """Copies the arrays of a tree out of the file's bytes, onto JAX's default device."""
    if isinstance(tree, MXNetRecord):
        return tree._replace(attributes=_owned(tree.attributes))
    if isinstance(tree, dict):
        return {key: _owned(value) for key, value in tree.items()}
    if isinstance(tree, RowSparse):
        indices = _array(_narrowed(tree.indices, tree.shape[0]))
        return RowSparse.tree_unflatten(tree.shape, (indices, _owned(tree.values)))
    if isinstance(tree, CSR):
        indices = _narrowed(tree.indices, tree.shape[1])
        indptr = _narrowed(tree.indptr, len(tree.data) + 1)
        return CSR(_array(tree.data), _array(indices), _array(indptr), tree.shape)
    if isinstance(tree, (list, tuple)):
        return type(tree)(map(_owned, tree))
    return _array(tree) if isinstance(tree, np.ndarray) else tree


def _narrowed(indices: Any, end: int) -> Any:
    """Indices below `end` in JAX's own dtype, where that has room for them."""
    kind = jax.dtypes.canonicalize_dtype(np.int64)
    return indices.astype(kind) if end <= np.iinfo(kind).max else indices


def _array(array: np.ndarray) -> Any:
    kept = jax.dtypes.canonicalize_dtype(array.dtype) == array.dtype
    # Copied here: jnp.array would compile a copy for every shape.
    return jnp.asarray(array.copy()) if kept else array.copy()
