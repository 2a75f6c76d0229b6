"""Some rows of tables, changed in place."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmxopt._core.numeric import on_cpu
from jaxmxopt._core.sparse import UniqueRows

__all__ = ["change_rows"]

# Rows are read and written in blocks of so many bytes of a table: what was read, and where its
# pages are, is still at hand when it is written.
BLOCK = 65536
# A block of fewer rows would cost more to start than it saves.
FEWEST = 64


def change_rows(
    function: Callable[[Any, jax.Array], Any],
    arrays: Any,
    has_rows: Any,
    rows: UniqueRows,
    height: int,
) -> Any:
    """Replace rows of the arrays of a pytree by what a function makes of them.

    Args:
        function: takes the arrays, of those with rows the old rows alone, and values; returns
            the same pytree. An array without rows comes out the same for any rows.
        arrays: what is changed.
        has_rows: a like pytree: True for an array whose first axis has the rows.
        rows: which rows, and their values. Those from the height on are left out.
        height: the number of rows.

    Returns:
        The arrays, of which no other row has been read or written.
    """
    leaves, tree = jax.tree.flatten(arrays)
    tall: list[bool] = tree.flatten_up_to(has_rows)
    first = leaves

    def changed(now: list[Any], rows: UniqueRows) -> list[Any]:
        used = rows.indices < height
        # What unused places read is not written back.
        known = jnp.minimum(rows.indices, height - 1)
        old = [
            n.at[known].get(mode="promise_in_bounds") if has else f
            for n, f, has in zip(now, first, tall, strict=True)
        ]
        new = tree.flatten_up_to(function(jax.tree.unflatten(tree, old), rows.values))

        def put(array: Any, old: Any, new: Any) -> Any:
            # What is written depends on what was read, or XLA would copy the table to read it
            # later.
            new = jnp.where(used.reshape(-1, *[1] * (new.ndim - 1)), new, old)
            return array.at[rows.indices].set(new, mode="drop", unique_indices=True)

        parts = zip(now, old, new, tall, strict=True)
        return [put(a, o, n) if has else n for a, o, n, has in parts]

    values = rows.values
    size = max(BLOCK * values.shape[0] // max(values.nbytes, 1), FEWEST)
    count = values.shape[0] // size
    if count < 2 or not on_cpu():
        return jax.tree.unflatten(tree, changed(leaves, rows))
    blocks = jax.tree.map(
        lambda array: array[: count * size].reshape(count, size, *array.shape[1:]), rows
    )
    try:
        now, _ = lax.scan(lambda now, block: (changed(now, block), None), leaves, blocks)
    except TypeError:
        # Under `shard_map` a table may vary over more axes afterwards, which no loop allows.
        return jax.tree.unflatten(tree, changed(leaves, rows))
    if count * size < values.shape[0]:
        now = changed(now, jax.tree.map(lambda array: array[count * size :], rows))
    return jax.tree.unflatten(tree, now)
