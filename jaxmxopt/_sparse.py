"""Gradients of some rows of a weight."""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

__all__ = ["RowSparse"]

Self = TypeVar("Self", bound="RowSparse")


class RowSparse:
    r"""A gradient that is zero outside some rows: MXNet's `row_sparse`.

    Stands for the array :math:`G` with :math:`G_{r} = \sum_{i: \mathrm{indices}_i = r}
    \mathrm{values}_i`: duplicate indices add up. Indices may come in any order; one outside
    `[0, shape[0])` is refused when the values are known and dropped under `jax.jit`.

    Attributes:
        indices: int32 or int64, shape `(k,)`: the rows.
        values: floating, shape `(k, *shape[1:])`: the row gradients.
        shape: the shape of the array it stands for; static.
    """

    indices: jax.Array
    values: jax.Array
    shape: tuple[int, ...]

    def __init__(self, indices: Any, values: Any, shape: tuple[int, ...]) -> None:
        self.indices = jnp.asarray(indices)
        self.values = jnp.asarray(values)
        self.shape = tuple(int(size) for size in shape)
        self._check()

    def _check(self) -> None:
        indices, values, shape = self.indices, self.values, self.shape
        if indices.size == 0 and not isinstance(indices, Tracer):
            self.indices = indices = indices.astype(jnp.int32)
        if indices.ndim != 1 or not jnp.issubdtype(indices.dtype, jnp.integer):
            raise ValueError(
                "RowSparse: indices must be a vector of integers, "
                f"got shape {indices.shape} and dtype {indices.dtype}."
            )
        if not shape or values.shape != (*indices.shape, *shape[1:]):
            raise ValueError(
                f"RowSparse: values must have shape {(*indices.shape, *shape[1:])} for "
                f"{indices.size} indices into shape {shape}, got {values.shape}."
            )
        if not isinstance(indices, Tracer) and indices.size:
            known = np.asarray(indices)
            outside = known[(known < 0) | (known >= shape[0])]
            if outside.size:
                raise ValueError(
                    f"RowSparse: indices must be in [0, {shape[0]}), got {int(outside[0])}."
                )

    def tree_flatten(self) -> tuple[tuple[Any, Any], tuple[int, ...]]:
        """The arrays and, as structure, the shape."""
        return (self.indices, self.values), self.shape

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, Any], tuple[int, ...]]:
        """`tree_flatten` with the names of the arrays."""
        names = (jax.tree_util.GetAttrKey("indices"), jax.tree_util.GetAttrKey("values"))
        return tuple(zip(names, (self.indices, self.values), strict=True)), self.shape  # pyright: ignore[reportReturnType]

    @classmethod
    def tree_unflatten(cls: type[Self], shape: tuple[int, ...], children: tuple[Any, Any]) -> Self:
        """Rebuilds without checks: children may be placeholders."""
        self = object.__new__(cls)
        self.indices, self.values = children
        self.shape = shape
        return self

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the values."""
        return self.values.dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions of the array it stands for."""
        return len(self.shape)

    def astype(self, dtype: Any) -> "RowSparse":
        """The same rows with values of another dtype."""
        return self.tree_unflatten(self.shape, (self.indices, self.values.astype(dtype)))

    def todense(self) -> jax.Array:
        """The array it stands for."""
        zeros = jnp.zeros(self.shape, self.values.dtype)
        indices = jnp.where(self.indices < 0, self.shape[0], self.indices)
        return zeros.at[indices].add(self.values, mode="drop")

    def unique(self) -> "UniqueRows":
        """Sorts the indices and sums duplicates; sizes stay `k`.

        Slots left over by duplicates, and indices out of range, get distinct indices from
        `shape[0]` on, so the result stays sorted and unique and a scatter drops them.
        """
        count, height = self.indices.shape[0], self.shape[0]
        if count == 0:
            return UniqueRows(self.indices, self.values)
        position = jnp.arange(count, dtype=self.indices.dtype)
        inside = (self.indices >= 0) & (self.indices < height)
        rows, order = jax.lax.sort((jnp.where(inside, self.indices, height), position), num_keys=1)
        first = jnp.concatenate([jnp.ones(1, bool), rows[1:] != rows[:-1]])
        segment = jnp.cumsum(first, dtype=self.indices.dtype) - 1
        values = jax.ops.segment_sum(
            self.values[order], segment, num_segments=count, indices_are_sorted=True
        )
        spare = height + position
        unique = spare.at[segment].min(rows, indices_are_sorted=True)
        return UniqueRows(jnp.where(unique >= height, spare, unique), values)


jax.tree_util.register_pytree_with_keys_class(RowSparse)


class UniqueRows(NamedTuple):
    """Sorted, distinct row indices and their values; indices from the height on are unused."""

    indices: jax.Array
    values: jax.Array
