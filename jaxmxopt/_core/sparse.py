"""Gradients of some rows of a weight."""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxmxopt._core.copies import on_device
from jaxmxopt._core.exported import exportable_node
from jaxmxopt._core.row_keys import as_integers, as_keys, host_integers, is_keys

__all__ = ["RowSparse", "UniqueRows", "is_row_sparse"]

Self = TypeVar("Self", bound="RowSparse")
# The least number of rows that `padded` fills up to by itself.
FEWEST = 8


def _past_the_height(dtype: Any) -> Any:
    """Return a dtype of indices that holds any height beside them."""
    narrow = dtype.itemsize < 4 or dtype == np.uint32
    return np.dtype(np.int32) if narrow else dtype


def _as_indices(indices: Any) -> Any:
    """Return indices in a dtype that JAX has; without 64-bit types it would cut them off."""
    if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(indices)):
        return jnp.asarray(indices)
    given = _integers(indices)
    if given.dtype.kind not in "iuO":
        return given
    wanted = np.int64 if given.dtype.kind == "O" else given.dtype
    kept = np.iinfo(jax.dtypes.canonicalize_dtype(wanted))
    lost = given[(given < kept.min) | (given > kept.max)]
    if lost.size:
        more = "" if kept.bits == 64 else "; jax_enable_x64 allows more"
        raise ValueError(f"RowSparse: indices must be of {kept.dtype}, got {lost.flat[0]}{more}.")
    return given.astype(kept.dtype)


def _integers(indices: Any) -> np.ndarray:
    """Return indices as an array, of Python's integers where they are too large for NumPy's."""
    try:
        given = np.asarray(indices)
        large = given.dtype.kind in "fO" and given.size and not hasattr(indices, "dtype")
        exact = np.array(indices, object) if large else given
    except ValueError:
        given = exact = np.empty(1, object)
    if exact.dtype.kind == "O" and all(isinstance(index, int) for index in exact.flat):
        return exact
    if given.dtype.kind in "OUS":
        raise TypeError(f"RowSparse: indices must be a vector of integers, got {indices!r}.")
    return given


class RowSparse:
    r"""A gradient that is zero outside some rows: MXNet's `row_sparse`.

    Stands for the array :math:`G` with :math:`G_{r} = \sum_{i: \mathrm{indices}_i = r}
    \mathrm{values}_i`: duplicate indices add up. Indices may come in any order; one outside
    `[0, shape[0])` is refused when the values are known and dropped under `jax.jit`.

    `a + b`, `a * 2`, `a / 2` and `-a` are RowSparse again. A pytree of its two arrays, of which
    that of the indices has a dtype without arithmetic, so that `jax.tree.map(lambda leaf: leaf * 2,
    grads)` raises TypeError, "multiply does not accept dtypes key<fry>"; with
    `is_leaf=lambda node: isinstance(node, jaxmxopt.RowSparse)` it reaches the values alone.

    Args:
        indices: a vector of integers.
        values: one row for every index.
        shape: of the array it stands for.

    Attributes:
        indices: integers, shape `(k,)`: the rows.
        values: shape `(k, *shape[1:])`: the row gradients.
        shape: the shape of the array it stands for; static.

    Raises:
        ValueError: shapes do not fit, or an index is out of range.
        TypeError: shape is no tuple of integers, or indices are no numbers.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> grad = mxopt.RowSparse([3, 1, 3], jnp.ones((3, 2)), (5, 2))
        >>> grad
        RowSparse(3 rows of (5, 2), float32)
        >>> grad.todense()[3].tolist()
        [2.0, 2.0]
    """

    values: jax.Array
    shape: tuple[int, ...]
    # The indices as keys, and their dtype. Placeholders, and arrays from a file, as they are.
    _held: Any
    _dtype: str

    # NumPy's arithmetic would take it for a scalar.
    __array_ufunc__ = None

    def __init__(self, indices: Any, values: Any, shape: tuple[int, ...]) -> None:
        rows = _as_indices(indices)
        # Not jnp.asarray, which compiles for every shape.
        self.values = on_device(values) if isinstance(values, np.ndarray) else jnp.asarray(values)
        try:
            self.shape = tuple(int(size) for size in shape)
        except TypeError:
            raise TypeError(
                f"RowSparse: shape must be a tuple of integers, got {shape!r}."
            ) from None
        self._hold(self._checked(rows))

    def _checked(self, indices: Any) -> Any:
        values, shape = self.values, self.shape
        if indices.size == 0 and not isinstance(indices, Tracer):
            indices = np.zeros(indices.shape, np.int32)
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
        return indices

    def _hold(self, indices: Any) -> None:
        """Keep integers, as keys."""
        self._dtype = np.dtype(indices.dtype).name
        self._held = as_keys(indices)

    @classmethod
    def _unchecked(cls: type[Self], indices: Any, values: Any, shape: tuple[int, ...]) -> Self:
        """Make one of arrays of which it is known that they fit."""
        self = object.__new__(cls)
        self.values, self.shape = values, shape
        self._hold(indices)
        return self

    @property
    def indices(self) -> jax.Array:
        """The rows: integers, shape `(k,)`."""
        return as_integers(self._held, self._dtype) if is_keys(self._held) else self._held

    def tree_flatten(self) -> tuple[tuple[Any, Any], Any]:
        """Return the arrays, the indices as keys, and as structure the shape and their dtype."""
        return (self._held, self.values), (self.shape, self._dtype)

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, Any], Any]:
        """`tree_flatten` with the names of the arrays."""
        names = (jax.tree_util.GetAttrKey("indices"), jax.tree_util.GetAttrKey("values"))
        children, structure = self.tree_flatten()
        return tuple(zip(names, children, strict=True)), structure  # pyright: ignore[reportReturnType]

    @classmethod
    def tree_unflatten(cls: type[Self], structure: Any, children: tuple[Any, Any]) -> Self:
        """Rebuilds without checks: children may be placeholders."""
        self = object.__new__(cls)
        self._held, self.values = children
        self.shape, self._dtype = structure
        return self

    def __reduce__(self) -> Any:
        return type(self)._unchecked, (np.asarray(self.indices), self.values, self.shape)

    def _with(self: Self, values: Any) -> Self:
        return self.tree_unflatten((self.shape, self._dtype), (self._held, values))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the values."""
        return self.values.dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions of the array it stands for."""
        return len(self.shape)

    def __repr__(self) -> str:
        if not hasattr(self._held, "shape") or not hasattr(self.values, "dtype"):
            return f"RowSparse({self._held!r}, {self.values!r}, {self.shape})"
        rows = " x ".join(str(size) for size in self._held.shape)
        return f"RowSparse({rows} rows of {self.shape}, {self.dtype})"

    # Arithmetic.

    def astype(self: Self, dtype: Any) -> Self:
        """Return the same rows with values of another dtype."""
        return self._with(self.values.astype(dtype))

    def __add__(self: Self, other: Any) -> Self:
        """Return the sum of two gradients of one weight: the rows of both."""
        if not isinstance(other, RowSparse):
            return NotImplemented
        if self.shape != other.shape:
            raise ValueError(
                f"RowSparse.__add__: both must be of one shape, got {self.shape} and {other.shape}."
            )
        indices = [self.indices, other.indices]
        if self._dtype != other._dtype:
            wide = max(rows.dtype.itemsize for rows in indices) == 8
            indices = [rows.astype(jnp.int64 if wide else jnp.int32) for rows in indices]
        values = jnp.concatenate([self.values, other.values])
        return self._unchecked(jnp.concatenate(indices), values, self.shape)

    def __mul__(self: Self, factor: Any) -> Self:
        return self._with(self.values * _scalar("__mul__", factor))

    __rmul__ = __mul__

    def __truediv__(self: Self, divisor: Any) -> Self:
        return self._with(self.values / _scalar("__truediv__", divisor))

    def __neg__(self: Self) -> Self:
        return self._with(-self.values)

    def norm(self) -> jax.Array:
        """Return the Euclidean norm of the dense array, in float32 or better."""
        values = self._wide().unique().inside(self.shape[0])
        return jnp.sqrt(jnp.sum(jnp.square(values)))

    def _wide(self: Self) -> Self:
        """Return the same with values in which sums lose nothing that the dtype could hold."""
        return self.astype(jnp.float32) if self.values.dtype.itemsize < 4 else self

    # Other forms.

    def todense(self) -> jax.Array:
        """Return the dense array that this stands for."""
        wide = self._wide()
        zeros = jnp.zeros(self.shape, wide.dtype)
        return zeros.at[self._rows()].add(wide.values, mode="drop").astype(self.dtype)

    def to_bcoo(self) -> Any:
        """Return the same as a `jax.experimental.sparse.BCOO` with one sparse dimension."""
        from jax.experimental.sparse import BCOO

        return BCOO((self.values, self._rows()[:, None]), shape=self.shape)

    @classmethod
    def from_bcoo(cls: type[Self], array: Any) -> Self:
        """Make one from a `jax.experimental.sparse.BCOO`.

        Args:
            array: with one sparse dimension, the first, and no batch dimension. Its padding,
                indices from the height on, is kept and has no effect.

        Raises:
            ValueError: it has other dimensions.
        """
        if array.n_batch != 0 or array.n_sparse != 1:
            raise ValueError(
                "RowSparse.from_bcoo: array must have n_sparse=1 and n_batch=0, got "
                f"n_sparse={array.n_sparse} and n_batch={array.n_batch}; "
                "jax.experimental.sparse.bcoo_update_layout changes them."
            )
        return cls._unchecked(array.indices[:, 0], array.data, tuple(array.shape))

    def padded(self: Self, size: int | None = None) -> Self:
        """Return the same gradient with more rows, which have no effect.

        A step recompiles for every number of rows. Batches that are filled up to a few sizes
        share a few programs. Outside of `jax.jit` the rows pass through the host, where nothing
        is compiled for them.

        Args:
            size: the number of rows to fill up to. None: the next power of two, 8 at least.

        Raises:
            ValueError: there are more rows than `size`.
            TypeError: `size` is no integer.

        Example:
            >>> import jax.numpy as jnp, jaxmxopt as mxopt
            >>> mxopt.RowSparse([3, 7, 4], jnp.ones((3, 2)), (9, 2)).padded(64)
            RowSparse(64 rows of (9, 2), float32)
        """
        if self._held.ndim != 1:
            raise ValueError(
                f"RowSparse.padded: indices must be a vector, got shape {self._held.shape}."
            )
        count = self._held.shape[0]
        size = max(1 << (count - 1).bit_length(), FEWEST) if size is None else size
        if not isinstance(size, (int, np.integer)):
            raise TypeError(f"RowSparse.padded: size must be an integer, got {size!r}.")
        if size < count:
            raise ValueError(
                f"RowSparse.padded: size must be at least the number of rows, {count}, got {size}."
            )
        if size == count:
            return self
        traced = isinstance(self._held, Tracer) or isinstance(self.values, Tracer)
        xp: Any = jnp if traced else np
        rows: Any = self.indices if traced else host_integers(self._held, self._dtype)
        values: Any = self.values if traced else jax.device_get(self.values)
        dtype = _past_the_height(rows.dtype)
        rows = xp.concatenate([rows.astype(dtype), xp.full(size - count, self.shape[0], dtype)])
        zeros = xp.zeros((size - count, *self.values.shape[1:]), self.values.dtype)
        values = xp.concatenate([values, zeros])
        if not traced:
            committed = getattr(self.values, "committed", False)
            place = self.values.sharding if committed else None
            rows, values = as_keys(rows), jax.device_put(values, place)
            rows = rows if place is None else jax.device_put(rows, place)
            return self.tree_unflatten((self.shape, dtype.name), (rows, values))
        return self._unchecked(rows, values, self.shape)

    def unique(self) -> "UniqueRows":
        """Sum the values of duplicate indices; sizes stay `k`."""
        rows, height = self._rows(), self.shape[0]
        if rows.shape[0] < 2:
            return UniqueRows(rows, self.values)
        # Rows that come in order, as MXNet's do, unused ones last, need no more than this look.
        ascending = jnp.all((rows[1:] > rows[:-1]) | (rows[1:] == height))
        return lax.cond(ascending, self._in_order, self._summed, rows, self.values)

    def _in_order(self, rows: jax.Array, values: jax.Array) -> "UniqueRows":
        """Make the unused of distinct rows distinct too."""
        spare = self.shape[0] + lax.iota(rows.dtype, rows.shape[0])
        return UniqueRows(jnp.where(rows < self.shape[0], rows, spare), values)

    def _summed(self, rows: jax.Array, values: jax.Array) -> "UniqueRows":
        """Sum what falls on one row at the place of the row's first index in order."""
        # Sorting indices and positions together would take several times as long on a CPU.
        ordered = lax.sort(rows, is_stable=False)
        first = jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]])
        place = jnp.searchsorted(ordered, rows, method="scan_unrolled")
        values = jnp.zeros_like(values).at[place].add(values, mode="promise_in_bounds")
        spare = self.shape[0] + lax.iota(rows.dtype, rows.shape[0])
        return UniqueRows(jnp.where(first, ordered, spare), values)

    def inside(self) -> jax.Array:
        """Return the values, zero where their index is out of range."""
        return UniqueRows(self._rows(), self.values).inside(self.shape[0])

    def _rows(self) -> jax.Array:
        """Return the indices, wide enough for the height, which stands for all out of range."""
        rows, height = self.indices, self.shape[0]
        rows = rows.astype(_past_the_height(rows.dtype))
        return jnp.where((rows < 0) | (rows > height), height, rows)


jax.tree_util.register_pytree_with_keys_class(RowSparse)
exportable_node(RowSparse)


def is_row_sparse(node: Any) -> bool:
    """True if a node of a tree is a `RowSparse`, for functions that take one as a leaf."""
    return isinstance(node, RowSparse)


class UniqueRows(NamedTuple):
    """Distinct row indices, in no order, and their values; indices from the height on are unused.

    No two indices are equal, the unused ones included, so a scatter may rely on it.
    """

    indices: jax.Array
    values: jax.Array

    def inside(self, height: int) -> jax.Array:
        """Return the values, zero where they belong to no row."""
        used = (self.indices < height).reshape(-1, *[1] * (self.values.ndim - 1))
        return jnp.where(used, self.values, 0)


def _scalar(call: str, number: Any) -> Any:
    if isinstance(number, RowSparse) or jnp.ndim(number) != 0:
        given = getattr(number, "shape", type(number).__name__)
        raise ValueError(f"RowSparse.{call}: the number must be a scalar, got {given}.")
    return number
