"""Some rows of tables, changed in place."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmxopt._core.in_place import apart, plain_calls
from jaxmxopt._core.numeric import on_cpu
from jaxmxopt._core.one_kernel import NoKernelError, in_one_kernel
from jaxmxopt._core.opaque import opaque
from jaxmxopt._core.sparse import UniqueRows

__all__ = ["change_rows"]

# Rows are read and written in blocks of so many bytes of a table: what was read, and where its
# pages are, is still at hand when it is written.
BLOCK = 65536
# A block of fewer rows would cost more to start than it saves.
FEWEST = 64
# Rows from so many bytes on are changed one by one: a step of the loop costs more than a narrower
# row.
NARROWEST = 64
# The bytes that come from memory together.
LINE = 64

Change = Callable[[list[Any], jax.Array], list[Any]]


def change_rows(
    function: Callable[[Any, jax.Array], Any], arrays: Any, rows: UniqueRows, height: int
) -> Any:
    """Replaces rows of the arrays of a pytree by what a function makes of them.

    Args:
        function: takes the arrays, of those with rows the old rows alone, and values; returns
            the same pytree. An array without rows comes out as it does from any block.
        arrays: those of the given height have rows, the others have none.
        rows: which, and their values. Those from the height on are left out.
        height: the number of rows.

    Returns:
        The arrays, of which no other row has been read or written.
    """
    leaves, tree = jax.tree.flatten(arrays)
    tall = [leaf.ndim > 0 and leaf.shape[0] == height for leaf in leaves]

    def change(old: list[Any], values: jax.Array) -> list[Any]:
        return tree.flatten_up_to(function(jax.tree.unflatten(tree, old), values))

    parts = _Parts(change, tall, height)
    # Several threads read one table sooner than one thread does.
    if sum(tall) > 1 and rows.indices.size and rows.values[0].nbytes >= NARROWEST:
        # XLA puts constants into the loops of a kernel, and aborts the process where one is large.
        leaves, rows = opaque((leaves, rows))
        leaves = in_one_kernel(parts.one_by_one, parts.in_blocks, leaves, rows, loops=2)
    else:
        leaves = parts.in_blocks(leaves, rows)
    return jax.tree.unflatten(tree, leaves)


class _Parts(NamedTuple):
    """The rows of some arrays.

    Attributes:
        change: makes new arrays, as `now` below, of old ones and values; of those with rows it is
            given some rows alone.
        tall: which of the arrays have rows.
        height: the number of rows.
    """

    change: Change
    tall: Sequence[bool]
    height: int

    def one_by_one(self, now: list[Any], rows: UniqueRows) -> list[Any]:
        """Changes row after row, those of a block brought into the caches before."""
        first, tall = now, self.tall
        count = rows.indices.size
        widest = max(_row_bytes(one) for one in (rows.values, *self._with_rows(now)))
        size = min(max(BLOCK // widest, 1), count)
        # A place that has a sign might count from the end.
        unsigned = jnp.dtype(f"uint{8 * rows.indices.dtype.itemsize}")

        @apart
        def fetched(now: list[Any], start: jax.Array) -> Any:
            # Loads that wait for nothing and with little between them: a processor has many of
            # them on their way at once, and the rows' arithmetic, which it would have to keep
            # waiting, comes later. What follows needs the start, so it comes after this.
            later = lax.dynamic_slice_in_dim(rows.indices, start, size)
            return start, [_lines(array, later) for array in self._with_rows(now)]

        @apart
        def changed(now: list[Any], place: jax.Array, row: jax.Array) -> Any:
            parts = zip(now, first, tall, strict=True)
            old = [_row(n, row) if has else f for n, f, has in parts]
            # One choice for each number, as of one for all LLVM would make a branch around a loop
            # that it does not vectorise.
            used = [jnp.full(o.shape, row < self.height) for o in old]
            with plain_calls():
                return self.change(old, _row(rows.values, place)), used

        def step(place: jax.Array, now: list[Any]) -> list[Any]:
            place = place.astype(unsigned)
            row = _row(rows.indices, place)[0].astype(unsigned)
            # All of the row is computed before any of it is written.
            new, used = changed(now, place, row)

            def put(array: Any, new: Any, used: Any) -> Any:
                new = jnp.where(used, new, _row(array, row))
                return lax.dynamic_update_slice_in_dim(array, new.astype(array.dtype), row, 0)

            parts = zip(now, new, used, tall, strict=True)
            return [put(a, n, u) if has else n for a, n, u, has in parts]

        def block(number: jax.Array, now: list[Any]) -> list[Any]:
            start, _ = fetched(now, number * size)
            return lax.fori_loop(start, jnp.minimum(start + size, count), step, now)

        try:
            return lax.fori_loop(0, -(-count // size), block, now)
        except TypeError as error:
            raise NoKernelError("The rows are no loop.") from error

    def _with_rows(self, now: Sequence[Any]) -> list[Any]:
        return [array for array, has in zip(now, self.tall, strict=True) if has]

    def in_blocks(self, now: list[Any], rows: UniqueRows) -> list[Any]:
        """Changes so many rows at once that they stay in the caches until they are written."""
        first, tall, height = now, self.tall, self.height

        def changed(now: list[Any], rows: UniqueRows) -> list[Any]:
            used = rows.indices < height
            # What unused places read is not written back.
            known = jnp.minimum(rows.indices, height - 1)
            old = [
                n.at[known].get(mode="promise_in_bounds") if has else f
                for n, f, has in zip(now, first, tall, strict=True)
            ]
            new = self.change(old, rows.values)

            def put(array: Any, old: Any, new: Any) -> Any:
                # What is written depends on what was read, or XLA would copy the table to read
                # it later.
                new = jnp.where(used.reshape(-1, *[1] * (new.ndim - 1)), new, old)
                return array.at[rows.indices].set(new, mode="drop", unique_indices=True)

            parts = zip(now, old, new, tall, strict=True)
            return [put(a, o, n) if has else n for a, o, n, has in parts]

        values = rows.values
        size = max(BLOCK * values.shape[0] // max(values.nbytes, 1), FEWEST)
        count = values.shape[0] // size
        if count < 2 or not on_cpu():
            return changed(now, rows)
        blocks = jax.tree.map(
            lambda array: array[: count * size].reshape(count, size, *array.shape[1:]), rows
        )
        try:
            now, _ = lax.scan(lambda now, block: (changed(now, block), None), now, blocks)
        except TypeError:
            # Under `shard_map` a table may vary over more axes afterwards, which no loop allows.
            return changed(now, rows)
        if count * size < values.shape[0]:
            now = changed(now, jax.tree.map(lambda array: array[count * size :], rows))
        return now


def _row(array: jax.Array, row: jax.Array) -> jax.Array:
    """A row of an array, the first dimension kept."""
    return lax.dynamic_slice_in_dim(array, row, 1)


def _row_bytes(array: jax.Array) -> int:
    """The bytes of a row of an array."""
    return max(array.nbytes // array.shape[0], 1)


def _lines(array: jax.Array, rows: jax.Array) -> jax.Array:
    """A number of every cache line of some rows."""
    some = array.at[rows].get(mode="clip", wrap_negative_indices=False)
    return some if some.ndim == 1 else some[..., :: LINE // some.dtype.itemsize]
