"""Gradients of a loss in which tables are looked up, without ever making the dense ones."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmxopt._core.lookups import Lookups, Table, evaluate
from jaxmxopt._core.paths import flatten_with_names
from jaxmxopt._core.sparse import RowSparse

__all__ = ["value_and_row_grad"]


def value_and_row_grad(
    loss: Callable[..., Any], tables: str | Sequence[str], *, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """`jax.value_and_grad` whose gradients of embedding tables are `RowSparse`.

    The loss is written as ever: `table[ids]`, `jnp.take(table, ids, axis=0)` or an embedding
    layer, as often as wanted, also under `vmap`, inside `scan` and through casts of the table.
    The gradient of a table holds one row for every row that was looked up, duplicates included,
    and no array of the table's size is made for it. Inside `jax.shard_map` it holds the rows of
    its own device.

    A table that is used for anything else, such as an output layer tied to it or a norm of it,
    has a dense gradient by nature. It is refused; left out of `tables` it gets that gradient.

    Args:
        loss: `loss(params, *args, **kwargs)` gives a real scalar, or with `has_aux` a pair of it
            and a pytree of arrays.
        tables: which leaves of `params` are tables: their paths, joined by `/`, or patterns such
            as `"*/embedding"`. What is a path stands for that leaf alone.
        has_aux: whether the loss gives a pair.

    Returns:
        A function of the arguments of `loss` that gives its value, or the pair, and a tree like
        `params` of gradients. Meant to be called inside `jax.jit`.

    Raises:
        ValueError: a table is used otherwise, or `tables` names no leaf.
        TypeError: `tables` holds no strings, or the loss gives what is no array.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmxopt as mxopt
        >>> params = {"table": jnp.ones((9, 2)), "scale": jnp.ones(())}
        >>> loss = lambda params, ids: params["scale"] * jnp.sum(params["table"][ids])
        >>> value, grads = mxopt.value_and_row_grad(loss, "table")(params, jnp.array([3, 5, 3]))
        >>> grads["table"], grads["scale"].item()
        (RowSparse(3 rows of (9, 2), float32), 6.0)
    """
    if not callable(loss):
        raise TypeError(f"value_and_row_grad: loss must be a function, got {loss!r}; it is first.")
    patterns = (tables,) if isinstance(tables, str) else tables
    if not isinstance(patterns, Sequence) or not all(isinstance(one, str) for one in patterns):
        raise TypeError(
            "value_and_row_grad: tables must be a path, a pattern or a list of them, "
            f"got {tables!r}."
        )

    def value_and_grad(params: Any, /, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        names, leaves, tree = flatten_with_names(params)
        numbers = _chosen(patterns, names, leaves)
        dense = {n: leaf for n, leaf in enumerate(leaves) if n not in numbers}
        traced, shapes = jax.make_jaxpr(
            lambda leaves: loss(jax.tree.unflatten(tree, leaves), *args, **kwargs),
            return_shape=True,
        )(leaves)

        looked_up = list[int]()

        def evaluated(dense: Any, perturbations: Any) -> tuple[Any, Any]:
            lookups = Lookups(perturbations)
            inputs = [dense.get(n, Table(n, name, leaves[n])) for n, name in enumerate(names)]
            outputs = evaluate(traced.jaxpr, traced.consts, inputs, lookups)
            outputs = [out.cast(out.array) if isinstance(out, Table) else out for out in outputs]
            result = jax.tree.unflatten(jax.tree.structure(shapes), outputs)
            value, aux = result if has_aux else (result, None)
            looked_up[:] = [lookup.number for lookup in lookups.found]
            indices = [lookup.indices for lookup in lookups.found]
            return value, (aux, indices, [lookup.rows for lookup in lookups.found])

        shapes_of_rows = jax.eval_shape(lambda dense: evaluated(dense, None)[1][2], dense)
        perturbations = [jnp.zeros_like(rows) for rows in shapes_of_rows]
        (value, (aux, indices, _)), (grads, rows) = jax.value_and_grad(
            evaluated, argnums=(0, 1), has_aux=True
        )(dense, perturbations)
        for n in numbers:
            own = [place for place, number in enumerate(looked_up) if number == n]
            grads[n] = _gradient(leaves[n], [indices[i] for i in own], [rows[i] for i in own])
        grads = jax.tree.unflatten(tree, [grads[n] for n in range(len(leaves))])
        return ((value, aux) if has_aux else value), grads

    return value_and_grad


def _chosen(patterns: Sequence[str], names: Sequence[str], leaves: Sequence[Any]) -> list[int]:
    """The numbers of the leaves that are tables."""
    chosen: set[int] = set()
    for pattern in patterns:
        found = [n for n, name in enumerate(names) if name == pattern]
        found = found or [n for n, name in enumerate(names) if fnmatch.fnmatchcase(name, pattern)]
        if not found:
            raise ValueError(
                f"value_and_row_grad: tables must name leaves of params, {list(names)}, "
                f"got {pattern!r}."
            )
        chosen.update(found)
    for n in chosen:
        shape, dtype = jnp.shape(leaves[n]), jnp.result_type(leaves[n])
        if not shape or not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(
                f"value_and_row_grad: table {names[n]!r} must be floating with a row axis, "
                f"got shape {shape} and dtype {dtype}."
            )
    return sorted(chosen)


def _gradient(table: Any, indices: Sequence[Any], rows: Sequence[Any]) -> RowSparse:
    """What was looked up of one table, put together."""
    shape = tuple(table.shape)
    if not rows:
        empty = jnp.zeros(0, jnp.int32), jnp.zeros((0, *shape[1:]), table.dtype)
        return RowSparse.tree_unflatten(shape, empty)
    indices = [part.reshape(-1) for part in indices]
    if len({part.dtype for part in indices}) > 1:
        indices = [part.astype(jnp.int32) for part in indices]
    values = jnp.concatenate([part.reshape(-1, *shape[1:]) for part in rows])
    return RowSparse.tree_unflatten(shape, (jnp.concatenate(indices), values))
