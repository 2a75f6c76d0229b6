"""The names of weights: paths in a tree, and multipliers by index, name or pattern."""

import fnmatch
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxmxopt._core.config import OrderedMap, Real, as_number

__all__ = [
    "Multipliers",
    "Tree",
    "find",
    "flatten_with_names",
    "matches",
    "nobody",
    "path_name",
]


def path_name(path: Any) -> str:
    """Return the index of a leaf in a tree: its path, joined by `/`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten_with_names(params: Any) -> tuple[list[str], list[Any], Any]:
    """Flatten a tree of weights; each leaf is named by its path.

    Raises:
        ValueError: two leaves have one name, as in `{"a/b": x, "a": {"b": y}}`.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    names = [path_name(path) for path, _ in leaves]
    if len(set(names)) < len(names):
        known: dict[str, Any] = {}
        for name, (path, _) in zip(names, leaves, strict=True):
            if name in known:
                both = " and ".join(map(jax.tree_util.keystr, (known[name], path)))
                raise ValueError(
                    f"every weight must have a path of its own, got {name!r} for {both}; "
                    "rename one."
                )
            known[name] = path
    return names, [leaf for _, leaf in leaves], tree


class Tree(NamedTuple):
    """A tree of weights, or one weight, taken apart.

    Attributes:
        names: the index of every weight: its path, or what the user gave for the one weight.
        leaves: the weights, in order.
        structure: puts them together again.
        whole: False for the one weight of `update`, whose state is not that of a tree.
    """

    names: Sequence[Hashable]
    leaves: list[Any]
    structure: Any
    whole: bool = True

    @classmethod
    def of(cls, params: Any) -> "Tree":
        """Take a tree of weights apart."""
        return cls(*flatten_with_names(params))

    @classmethod
    def of_one(cls, index: Hashable, weight: Any) -> "Tree":
        """Take one weight for a tree of one leaf."""
        return cls((index,), [weight], jax.tree.structure(0), whole=False)

    def like(self, leaves: Sequence[Any]) -> Any:
        """Return other leaves in the structure of this tree."""
        return self.structure.unflatten(leaves)

    def part(self, numbers: Sequence[int]) -> "Tree":
        """Return the tree with None in the place of all leaves but these."""
        if not self.whole:
            return self
        chosen = set(numbers)
        kept = [leaf if n in chosen else None for n, leaf in enumerate(self.leaves)]
        structure = jax.tree.structure(
            self.structure.unflatten([0 if n in chosen else None for n in range(len(kept))])
        )
        return Tree([self.names[n] for n in numbers], [self.leaves[n] for n in numbers], structure)


class Multipliers(OrderedMap):
    """An immutable mapping from index, name or pattern to a factor; the factors are leaves."""

    @classmethod
    def checked(cls, owner: str, field: str, given: Mapping[Any, Any]) -> "Multipliers":
        """Make one from a user's mapping, refusing what is not a real number."""
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


def find(
    multipliers: Mapping[Any, Any] | None, index: Hashable, name: str | None, default: Any = None
) -> Any:
    """Return the factor of one weight, or the default where nothing matches.

    An exact index goes before an exact name, and both before patterns (`"*/bias"`), of which the
    first that matches counts. Patterns are matched against the name, or a string index.
    """
    if not multipliers:
        return default
    if index in multipliers:
        return multipliers[index]
    if name is None and isinstance(index, str):
        name = index
    if name is None:
        return default
    if name in multipliers:
        return multipliers[name]
    for key, value in multipliers.items():
        if matches(key, name):
            return value
    return default


def matches(key: Hashable, name: str) -> bool:
    """True if a key is a pattern of a name."""
    return isinstance(key, str) and fnmatch.fnmatchcase(name, key)


def nobody(what: str, names: Iterable[str]) -> str:
    """Says that something is of none of the weights of these names."""
    names = list(names)
    some = ", ".join(map(repr, names[:3]))
    return f"{what} is of no weight; there are {some}{', ...' if len(names) > 3 else ''}."
