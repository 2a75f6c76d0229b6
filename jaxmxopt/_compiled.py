"""The compiled functions behind `update` and `step`, one for each structure of a definition.

A definition reaches them as its structure, which is static, and its numbers: a vector where all
are Python floats, a tuple of arrays or tracers otherwise. So a number never compiles anew.
"""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmxopt import _engine
from jaxmxopt._layout import Packed
from jaxmxopt._sparse import RowSparse
from jaxmxopt._state import State

__all__ = ["MismatchError", "WrongKindError", "check_arrays", "path_name", "step", "update"]


class MismatchError(ValueError):
    """Arrays that do not fit together; the caller adds which call and index it was."""


class WrongKindError(TypeError):
    """An argument that is not of the kind needed; the caller adds which call and index it was."""


def definition(structure: Any, numbers: Any) -> Any:
    """Rebuilds what was flattened, its numbers hidden from XLA's constant folding.

    Folded into a kernel, a constant is rounded elsewhere than an argument would be: with the
    barrier both give the same bits.
    """
    numbers = lax.optimization_barrier(numbers)
    if not isinstance(numbers, tuple):
        numbers = [lax.index_in_dim(numbers, i, keepdims=False) for i in range(numbers.shape[0])]
    return jax.tree.unflatten(structure, list(numbers))


@functools.lru_cache(maxsize=1024)
def update(structure: Any, adapts: bool) -> Callable[[Any, Any, Any, State], tuple[Any, State]]:
    """The jitted update of one weight by (definition, lr_mult, wd_mult) of this structure."""

    def run(numbers: Any, weight: Any, grad: Any, state: State) -> tuple[Any, State]:
        opt, lr_mult, wd_mult = definition(structure, numbers)
        check_arrays(opt, "", weight, grad, state)
        t = state.num_update + 1
        rates = opt._rates_at(t, lr_mult, wd_mult, _engine.compute_dtype(weight.dtype))
        weight, slots, master = _engine.update_weight(
            opt, rates, weight, grad, state.slots, state.master, None, adapts
        )
        return weight, State(t, slots, master)

    return jax.jit(run)


@functools.lru_cache(maxsize=1024)
def step(structure: Any, donate: bool) -> Callable[..., tuple[Any, State]]:
    """The jitted update of a whole tree by a definition of this structure."""

    def run(numbers: Any, params: Any, state: State, grads: Any, where: Any) -> Any:
        opt = definition(structure, numbers)
        names, weights, tree = flatten_with_names(params)
        grads = flatten_grads(tree, names, grads)
        ok = _checked_where(where)
        t = state.num_update + (1 if ok is None else ok.astype(jnp.int32))
        if not isinstance(state.slots, Packed) or state.slots.layout.size != len(weights):
            raise MismatchError("state is not of this tree of weights; make it with init(params).")
        rates = _RatesOfTree(opt, state.num_update + 1)
        new: list[Any] = [None] * len(weights)
        slots: list[Any] = []
        masters: list[Any] = []
        parts = zip(state.slots.layout.groups, state.slots.groups, state.master.groups, strict=True)
        for members, group_slots, group_master in parts:
            for number, leaf_slots, leaf_master in zip(
                members, *_abstract_parts(group_slots, group_master, len(members)), strict=True
            ):
                leaf_state = State(state.num_update, leaf_slots, leaf_master)
                check_arrays(opt, names[number], weights[number], grads[number], leaf_state)
            dtype = _engine.compute_dtype(weights[members[0]].dtype)
            updated, group_slots, group_master = _engine.update_group(
                opt,
                [rates.of(names[i], dtype) for i in members],
                [weights[i] for i in members],
                [grads[i] for i in members],
                group_slots,
                group_master,
                ok,
                [opt._adapts(opt._name(names[i])) for i in members],
            )
            for number, leaf in zip(members, updated, strict=True):
                new[number] = leaf
            slots.append(group_slots)
            masters.append(group_master)
        layout = state.slots.layout
        packed = Packed(tuple(slots), layout), Packed(tuple(masters), layout)
        return jax.tree.unflatten(tree, new), State(t, *packed)

    return jax.jit(run, donate_argnums=(1, 2) if donate else ())


class _RatesOfTree:
    """The rates of the weights of a tree; equal multipliers share one computation."""

    def __init__(self, opt: Any, t: Any) -> None:
        self._opt = opt
        self._t = t
        self._known: dict[Hashable, Any] = {}

    def of(self, name: str, dtype: Any) -> Any:
        lr_mult, wd_mult = self._opt._multipliers(name)
        key = (id(lr_mult), id(wd_mult), dtype)
        if key not in self._known:
            self._known[key] = self._opt._rates_at(self._t, lr_mult, wd_mult, dtype)
        return self._known[key]


def path_name(path: Any) -> str:
    """The index of a leaf in a tree: its path, joined by `/`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten_with_names(params: Any) -> tuple[list[str], list[Any], Any]:
    """Flattens a tree of weights; each leaf is named by its path."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    return [path_name(path) for path, _ in leaves], [leaf for _, leaf in leaves], tree


def flatten_grads(tree: Any, names: Sequence[str], grads: Any) -> list[Any]:
    """Flattens gradients along the tree of weights; a `RowSparse` is one leaf."""
    is_leaf = lambda node: isinstance(node, RowSparse)  # noqa: E731
    leaves, grads_tree = jax.tree.flatten(grads, is_leaf=is_leaf)
    if grads_tree == tree:
        return leaves
    paths = jax.tree_util.tree_flatten_with_path(grads, is_leaf=is_leaf)[0]
    given = {path_name(path) for path, _ in paths}
    missing = [name for name in names if name not in given]
    extra = sorted(given.difference(names))
    detail = (
        f"no gradient for {missing[0]!r}"
        if missing
        else f"a gradient for {extra[0]!r}, which is no weight"
        if extra
        else f"structure {grads_tree}, expected {tree}"
    )
    raise MismatchError(f"grads must have the structure of params, got {detail}.")


def _abstract_parts(slots: Any, master: Any, count: int) -> tuple[list[Any], list[Any]]:
    """The shapes of what belongs to each member of a group."""
    if count == 1:
        return [slots], [master]
    one = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (slots, master)
    )
    if any(leaf.shape[:1] != (count,) for leaf in jax.tree.leaves((slots, master))):
        raise MismatchError(
            f"state must have a leading axis of {count} where weights share an array."
        )
    return [one[0]] * count, [one[1]] * count


def _checked_where(where: Any) -> Any:
    if where is None:
        return None
    where = jnp.asarray(where)
    if where.shape != () or where.dtype != jnp.bool_:
        raise MismatchError(
            f"where must be a scalar bool, got shape {where.shape} and dtype {where.dtype}."
        )
    return where


def check_arrays(opt: Any, name: str, weight: Any, grad: Any, state: Any) -> None:
    """Checks the shapes and kinds of one update; runs while tracing, so costs calls nothing."""
    prefix = f"{name}: " if name else ""
    for what, array in (("weight", weight), ("grad", grad)):
        if not hasattr(array, "dtype") or not hasattr(array, "shape"):
            raise WrongKindError(f"{prefix}{what} must be an array, got {type(array).__name__}.")
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise WrongKindError(
                f"{prefix}{what} must be of a real floating dtype, got {array.dtype}."
            )
    if weight.shape != grad.shape:
        raise MismatchError(f"{prefix}grad has shape {grad.shape}, weight has {weight.shape}.")
    if not isinstance(state, State):
        raise WrongKindError(f"{prefix}state must be a State, got {type(state).__name__}.")
    full = weight
    if state.master is not None:
        full = state.master
        if full.shape != weight.shape:
            raise MismatchError(
                f"{prefix}state.master has shape {full.shape}, weight has {weight.shape}."
            )
    opt._check_slots(prefix, state.slots, jax.ShapeDtypeStruct(full.shape, full.dtype))
