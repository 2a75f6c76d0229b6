"""The leaves of a tree by name: what a file holds does not depend on how a state is laid out."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmxopt._core.layout import Packed
from jaxmxopt._core.paths import flatten_with_names, path_name
from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._core.state import State
from jaxmxopt._wrappers.groups import GroupSlots

__all__ = [
    "Leaf",
    "NamedLeaves",
    "TreeError",
    "WrongLeafError",
    "key_impl",
    "named_leaves",
    "place",
    "stored_form",
    "to_host",
]


class TreeError(ValueError):
    """A tree that cannot be saved or restored into; the caller adds which call it was."""


class WrongLeafError(TypeError):
    """A leaf that no file can hold; the caller adds which call it was."""


class Leaf(NamedTuple):
    """A leaf of a pytree: one named thing, or several of them along its leading axis."""

    names: tuple[str, ...]
    value: Any


class NamedLeaves(NamedTuple):
    """A tree taken apart.

    Attributes:
        leaves: in the order of `jax.tree.leaves`.
        nodes: what names alone do not say: the kinds of slots of every `State`, the shape of
            every `RowSparse`.
    """

    leaves: list[Leaf]
    nodes: dict[str, Any]


def named_leaves(tree: Any, params: Any) -> NamedLeaves:
    """Names the leaves of a tree by their paths.

    The state of a tree is taken weight by weight, as `state.unpack(params)` shows it, save that
    what all weights have in common, such as the count, is named once.

    Args:
        tree: any pytree.
        params: the weights that the states of trees in it are of; None where there are none.
    """
    found = NamedLeaves([], {})
    weights = None if params is None else flatten_with_names(params)[0]
    _collect(found, "", "", tree, weights)
    seen: set[str] = set()
    for leaf in found.leaves:
        for name in leaf.names:
            if name in seen:
                raise TreeError(f"leaves must have different paths, got two at {name!r}.")
            seen.add(name)
    return found


def _collect(
    found: NamedLeaves, prefix: str, inside: str, tree: Any, weights: Sequence[str] | None
) -> None:
    """Names the leaves of a part of a tree.

    Args:
        found: gets them.
        prefix: the path of the state that the part is of, or of the part.
        inside: the path of the part within that state.
        tree: the part.
        weights: the names of the weights that it is of.
    """
    is_node = lambda node: isinstance(node, (State, RowSparse, Packed, GroupSlots))  # noqa: E731
    for path, node in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_node)[0]:
        where = _joined(inside, path_name(path))
        name = _joined(prefix, where)
        if isinstance(node, State):
            found.nodes[name] = {"kind": "State", "slots": _kinds(node.slots)}
            for field in State._fields:
                _collect(found, name, field, getattr(node, field), weights)
        elif isinstance(node, GroupSlots):
            if weights is None or len(weights) != len(node.members):
                raise _other_weights(prefix, weights, len(node.members))
            for number, state in enumerate(node.states):
                own = [
                    w for w, member in zip(weights, node.members, strict=True) if member == number
                ]
                _collect(found, _joined(name, str(number)), "", state, own)
        elif isinstance(node, Packed):
            _collect_packed(found, prefix, where, node, weights)
        elif isinstance(node, RowSparse):
            found.nodes[name] = {"kind": "RowSparse", "shape": list(node.shape)}
            found.leaves.append(Leaf((_joined(name, "indices"),), node.indices))
            found.leaves.append(Leaf((_joined(name, "values"),), node.values))
        else:
            found.leaves.append(Leaf((name,), node))


def _joined(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _kinds(slots: Any) -> list[str]:
    """The algorithm as slots tell it, that inside a wrapper behind the wrapper."""
    if isinstance(slots, Packed):
        return sorted({kind for group in slots.groups for kind in _kinds(group)})
    inner = getattr(slots, "inner", None)
    return [type(slots).__name__, *([] if inner is None else _kinds(inner))]


def _collect_packed(
    found: NamedLeaves, prefix: str, where: str, packed: Packed, weights: Sequence[str] | None
) -> None:
    if weights is None:
        raise _other_weights(prefix, weights, packed.layout.size)
    if (misfit := packed.layout.misfit(weights)) is not None:
        raise TreeError(
            f"params must be the weights of {prefix or 'the state'!r}, which is of {misfit}."
        )
    for members, group in zip(packed.layout.groups, packed.groups, strict=True):
        for path, leaf in jax.tree_util.tree_flatten_with_path(group)[0]:
            ending = _joined(where, path_name(path))
            names = tuple(_joined(prefix, weights[member], ending) for member in members)
            found.leaves.append(Leaf(names, leaf))


def _other_weights(prefix: str, weights: Sequence[str] | None, size: int) -> TreeError:
    if weights is None:
        return TreeError(f"params must be given: {prefix or 'the state'!r} is of a whole tree.")
    return TreeError(f"params must have {size} leaves as the state has, got {len(weights)}.")


def key_impl(value: Any) -> str | None:
    """The algorithm of an array of random keys, None for other arrays."""
    if not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return None
    if isinstance(value, jax.Array):
        return str(jax.random.key_impl(value))
    # Of an abstract value only the dtype is known.
    for impl in ("threefry2x32", "rbg", "unsafe_rbg"):
        if jax.eval_shape(partial(jax.random.key, impl=impl), 0).dtype == value.dtype:
            return impl
    raise TreeError(f"random keys must be of an algorithm of JAX, got {value.dtype}.")


def stored_form(value: Any) -> tuple[str, tuple[int, ...]]:
    """The dtype and shape of the array that a file has for an array."""
    if key_impl(value) is not None:
        value = jax.eval_shape(jax.random.key_data, value)
    return value.dtype.name, tuple(value.shape)


def to_host(name: str, value: Any) -> np.ndarray:
    """The elements of an array, put together from its shards; random keys as their numbers."""
    if not isinstance(value, jax.Array):
        return np.asarray(value)
    if value.is_deleted():
        raise TreeError(f"{name!r} must be alive, got an array that was donated or deleted.")
    if not value.is_fully_addressable:
        raise TreeError(
            f"{name!r} must lie on devices of this process, got {value.sharding}; gather it first."
        )
    if key_impl(value) is not None:
        value = jax.random.key_data(value)
    shards = value.addressable_shards
    if len(shards) == 1:
        return np.asarray(value)
    whole = np.empty(value.shape, value.dtype)
    for shard in shards:
        if shard.replica_id == 0:
            whole[shard.index] = np.asarray(shard.data)
    return whole


def place(parts: Sequence[np.ndarray], like: Any) -> Any:
    """Makes an array of the kind of `like`, on its devices, of one part or several behind another.

    Args:
        parts: of the right dtype and shape.
        like: a NumPy or JAX array, or a `jax.ShapeDtypeStruct`.
    """
    host = parts[0] if len(parts) == 1 else np.stack(parts)
    if isinstance(like, np.generic):
        return host[()]
    if isinstance(like, np.ndarray):
        return np.array(host)
    sharding = like.sharding
    if not getattr(like, "committed", True):
        sharding = None
    if (impl := key_impl(like)) is not None:
        keys = jax.random.wrap_key_data(jnp.asarray(host), impl=impl)
        return keys if sharding is None else jax.device_put(keys, sharding)
    return jnp.asarray(host) if sharding is None else jax.device_put(host, sharding)
