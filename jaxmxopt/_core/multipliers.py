"""Multipliers of learning rate and weight decay, looked up by index, name or pattern."""

import fnmatch
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import jax

from jaxmxopt._core.config import OrderedMap, Real, as_number

__all__ = ["Multipliers", "find", "matches", "nobody"]


class Multipliers(OrderedMap):
    """An immutable mapping from index, name or pattern to a factor; the factors are leaves."""

    @classmethod
    def checked(cls, owner: str, field: str, given: Mapping[Any, Any]) -> "Multipliers":
        """Makes one from a user's mapping, refusing what is not a real number."""
        if not isinstance(given, Mapping):
            raise TypeError(f"{owner}: {field} must be a mapping, got {given!r}.")
        return cls((key, as_number(owner, f"{field}[{key!r}]", given[key], Real)) for key in given)


def _flatten(multipliers: Multipliers) -> tuple[tuple[Any, ...], tuple[Hashable, ...]]:
    return tuple(multipliers.values()), tuple(multipliers)


def _flatten_with_keys(multipliers: Multipliers) -> tuple[tuple[Any, ...], tuple[Hashable, ...]]:
    pairs = tuple((jax.tree_util.DictKey(key), value) for key, value in multipliers.items())
    return pairs, tuple(multipliers)


def _unflatten(keys: tuple[Hashable, ...], values: Iterable[Any]) -> Multipliers:
    return Multipliers(zip(keys, values, strict=True))


jax.tree_util.register_pytree_with_keys(Multipliers, _flatten_with_keys, _unflatten, _flatten)


def find(multipliers: Mapping[Any, Any] | None, index: Hashable, name: str | None) -> Any:
    """Returns the factor of one weight, or None where nothing matches.

    An exact index goes before an exact name, and both before patterns (`"*/bias"`), of which the
    first that matches counts. Patterns are matched against the name, or a string index.
    """
    if not multipliers:
        return None
    if index in multipliers:
        return multipliers[index]
    if name is None and isinstance(index, str):
        name = index
    if name is None:
        return None
    if name in multipliers:
        return multipliers[name]
    for key, value in multipliers.items():
        if matches(key, name):
            return value
    return None


def matches(key: Hashable, name: str) -> bool:
    """Whether a key is a pattern of a name."""
    return isinstance(key, str) and fnmatch.fnmatchcase(name, key)


def nobody(what: str, names: Iterable[str]) -> str:
    """Says that something is of none of the weights of these names."""
    names = list(names)
    some = ", ".join(map(repr, names[:3]))
    return f"{what} is of no weight; there are {some}{', ...' if len(names) > 3 else ''}."
