"""What of a tree goes into a file, and a tree made again from one."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from jaxmxopt._core.config import nearest
from jaxmxopt._core.version import __version__
from jaxmxopt._files.named_leaves import (
    Leaf,
    WrongLeafError,
    key_impl,
    named_leaves,
    place,
    stored_form,
    to_host,
)
from jaxmxopt._files.npz import Reader, is_storable
from jaxmxopt._files.zip import FileError

__all__ = ["Arrays", "contents", "restored"]

Arrays = Iterable[tuple[str, np.ndarray]]
_SCALARS = (bool, int, float, str)


def contents(tree: Any, params: Any) -> tuple[dict[str, Any], Arrays]:
    """Takes a tree apart for `_npz.write`.

    Args:
        tree: as `checkpoint.save` takes it.
        params: for the states of whole trees.

    Returns:
        What the header says of it, and its arrays, which come to the host one by one.
    """
    named = named_leaves(tree, params)
    values: dict[str, Any] = {}
    keys: dict[str, str] = {}
    arrays: list[Leaf] = []
    for names, leaf in named.leaves:
        if type(leaf) in _SCALARS:
            values[names[0]] = leaf
        elif isinstance(leaf, (jax.Array, np.ndarray, np.generic)) and not isinstance(leaf, Tracer):
            impl = key_impl(leaf)
            if impl is None and not is_storable(leaf.dtype):
                raise WrongLeafError(f"{names[0]!r} must be of a dtype of JAX, got {leaf.dtype}.")
            keys.update((name, impl) for name in names if impl is not None)
            arrays.append(Leaf(names, leaf))
        else:
            raise WrongLeafError(
                f"{names[0]!r} must be an array, a number or a string, got {type(leaf).__name__}."
            )
    header: dict[str, Any] = {
        "kind": "tree",
        "writer": f"jaxmxopt {__version__}",
        "nodes": named.nodes,
        "values": values,
        "keys": keys,
    }
    return header, _on_host(arrays)


def _on_host(leaves: Iterable[Leaf]) -> Iterator[tuple[str, np.ndarray]]:
    for names, leaf in leaves:
        host = to_host(names[0], leaf)
        parts = host if len(names) > 1 else [host]
        yield from zip(names, parts, strict=True)


def restored(reader: Reader, like: Any, params: Any) -> Any:
    """Makes a tree like `like` from a file, everything compared before anything is read."""
    named = named_leaves(like, params)
    if reader.header.get("kind") != "tree":
        raise FileError("must be of a tree, got one of an Updater or a Trainer.")
    nodes, values, _ = (reader.mapping(part) for part in ("nodes", "values", "keys"))
    for name, node in named.nodes.items():
        _compare(name, nodes.get(name), node)
    _check_names(named.leaves, {*reader.arrays, *values})
    for leaf in named.leaves:
        _check_leaf(reader, leaf)
    made = [_made(reader, leaf) for leaf in named.leaves]
    return jax.tree.unflatten(jax.tree.structure(like), made)


def _compare(name: str, found: Any, wanted: dict[str, Any]) -> None:
    if found != wanted:
        raise FileError(f"{name or 'the tree'!r} must be {_shown(wanted)}, got {_shown(found)}.")


def _shown(node: Any) -> str:
    match node:
        case {"kind": "State", "slots": list(kinds)}:
            return f"a State with slots {' or '.join(map(str, kinds))}"
        case {"kind": "RowSparse", "shape": list(shape)}:
            return f"a RowSparse of shape {tuple(shape)}"
        case _:
            return "something else"


def _check_names(leaves: Iterable[Leaf], found: set[str]) -> None:
    wanted = [name for leaf in leaves for name in leaf.names]
    extra = sorted(found.difference(wanted))
    for name in wanted:
        if name not in found:
            raise FileError(
                f"must hold {name!r}, got a file without it{nearest(name, extra) or '.'}"
            )
    if extra:
        raise FileError(f"must hold {len(wanted)} leaves, got {extra[0]!r} beside them.")


def _check_leaf(reader: Reader, leaf: Leaf) -> None:
    """Compares kind, dtype and shape."""
    values, keys = reader.mapping("values"), reader.mapping("keys")
    for name in leaf.names:
        if type(leaf.value) in _SCALARS:
            wanted = type(leaf.value).__name__
            found = type(values[name]).__name__ if name in values else "an array"
            if wanted != found:
                raise FileError(f"{name!r} must be of type {wanted}, got {found}.")
            continue
        if name not in reader.arrays:
            raise FileError(f"{name!r} must be an array, got {values[name]!r}.")
        record = reader.arrays[name]
        dtype, shape = stored_form(leaf.value)
        shape = shape if len(leaf.names) == 1 else shape[1:]
        wanted, found = key_impl(leaf.value) or dtype, keys.get(name) or record["dtype"]
        if wanted != found or dtype != record["dtype"]:
            raise FileError(f"{name!r} must have dtype {wanted}, got {found}.")
        if list(shape) != record["shape"]:
            raise FileError(f"{name!r} must have shape {shape}, got {tuple(record['shape'])}.")
        on_host = isinstance(leaf.value, (np.ndarray, np.generic))
        if not on_host and jax.dtypes.canonicalize_dtype(dtype).name != dtype:
            raise FileError(f"{name!r} must have a dtype of 32 bits without jax_enable_x64.")


def _made(reader: Reader, leaf: Leaf) -> Any:
    if type(leaf.value) in _SCALARS:
        return reader.mapping("values")[leaf.names[0]]
    return place([reader.array(name) for name in leaf.names], leaf.value)
