"""The names of the leaves of a tree: their paths."""

from typing import Any

import jax

__all__ = ["flatten_with_names", "path_name"]


def path_name(path: Any) -> str:
    """The index of a leaf in a tree: its path, joined by `/`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten_with_names(params: Any) -> tuple[list[str], list[Any], Any]:
    """Flattens a tree of weights; each leaf is named by its path."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    return [path_name(path) for path, _ in leaves], [leaf for _, leaf in leaves], tree
