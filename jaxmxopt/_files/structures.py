"""Containers of arrays as JSON, so that they can be made again without a pattern."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._files.named_leaves import TreeError, WrongLeafError
from jaxmxopt._files.records import class_name
from jaxmxopt._files.zip import FileError

__all__ = ["put_together", "taken_apart"]


def taken_apart(value: Any, name: str, leaves: dict[str, Any]) -> Any:
    """Says in JSON how a value is made of its leaves.

    Args:
        value: arrays, numbers, strings and None in tuples, lists, dicts with strings for keys,
            NamedTuples and `RowSparse`.
        name: of the value, from which those of its leaves are made.
        leaves: gets the leaves, by name.

    Returns:
        Containers as `{kind: parts}`, leaves as their names.
    """
    parts = _parts(value)
    if value is None:
        return None
    if parts is None:
        if name in leaves:
            raise TreeError(f"leaves must have different names, got two of {name!r}.")
        leaves[name] = value
        return name
    kind, named = parts
    record = {key: taken_apart(part, f"{name}/{key}", leaves) for key, part in named}
    if isinstance(value, RowSparse):
        record["shape"] = list(value.shape)
    return {kind: record}


def _parts(value: Any) -> tuple[str, Iterable[tuple[str, Any]]] | None:
    """The kind of a container and its parts by name, None for a leaf."""
    if isinstance(value, RowSparse):
        return "RowSparse", [("indices", value.indices), ("values", value.values)]
    fields = getattr(value, "_fields", None)
    if isinstance(value, tuple) and fields is not None:
        return f"named {class_name(type(value))}", zip(fields, value, strict=True)
    if type(value) in (tuple, list):
        return type(value).__name__, ((str(i), part) for i, part in enumerate(value))
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return "dict", value.items()
    if value is None or isinstance(value, (jax.Array, np.ndarray, np.generic, int, float, str)):
        return None
    raise WrongLeafError(
        f"states must be arrays, numbers, strings or None in tuples, lists and dicts with strings "
        f"for keys, got {type(value).__name__}."
    )


def put_together(record: Any, leaf: Callable[[str], Any]) -> Any:
    """The inverse of `taken_apart`.

    Args:
        record: from a file.
        leaf: gives a leaf by its name.

    Raises:
        FileError: the record is not of this form.
    """
    if record is None:
        return None
    if isinstance(record, str):
        return leaf(record)
    if not isinstance(record, dict) or len(record) != 1:
        raise FileError("is damaged: the structure of its states.")
    ((kind, content),) = record.items()
    if not isinstance(content, dict):
        raise FileError("is damaged: the structure of its states.")
    shape = content.get("shape")
    if kind == "RowSparse":
        content = {key: part for key, part in content.items() if key != "shape"}
    parts = {key: put_together(part, leaf) for key, part in content.items()}
    match kind:
        case "tuple":
            return tuple(parts.values())
        case "list":
            return list(parts.values())
        case "dict":
            return parts
        case "RowSparse":
            return _row_sparse(parts, shape)
        case _:
            return _named_tuple(kind, parts)


def _row_sparse(parts: dict[str, Any], shape: Any) -> RowSparse:
    try:
        return RowSparse(shape=shape, **parts)
    except (TypeError, ValueError) as error:
        raise FileError(f"is damaged: {error}") from None


def _named_tuple(kind: str, parts: dict[str, Any]) -> Any:
    # Classes that exist already; nothing is imported to find one.
    for known in tuple.__subclasses__():
        if f"named {class_name(known)}" == kind and getattr(known, "_fields", None) == tuple(parts):
            return tuple.__new__(known, parts.values())
    raise FileError(f"holds a {kind.removeprefix('named ')}, which is unknown here.")
