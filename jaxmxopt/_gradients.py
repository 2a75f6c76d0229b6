"""Functions of whole trees of gradients: are they finite, how long are they, which is to blame."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxmxopt._numeric import compute_dtype
from jaxmxopt._paths import path_name
from jaxmxopt._sparse import RowSparse, is_row_sparse

__all__ = [
    "NonFinite",
    "all_finite",
    "clip_factor",
    "clip_global_norm",
    "first_nonfinite",
    "multiplied",
]

Tree = TypeVar("Tree")


class NonFinite(NamedTuple):
    """A leaf that holds NaN or infinity.

    Attributes:
        path: of the leaf in its tree, joined by `/`.
        nan: the number of its elements that are NaN.
        inf: the number that are infinite.
        size: the number of all its elements.
    """

    path: str
    nan: int
    inf: int
    size: int

    def __str__(self) -> str:
        return f"{self.path!r} holds {self.nan} NaN and {self.inf} infinities in {self.size}"


def all_finite(tree: Any) -> jax.Array:
    """Whether no leaf of a tree holds NaN or infinity, as a scalar bool.

    The guard of an update: `opt.step(params, grads, state, where=all_finite(grads))` changes
    nothing, counts included, where a gradient is not finite.

    Args:
        tree: any pytree of arrays; integers and random keys are finite, and so are rows of a
            `RowSparse` whose index is out of range.
    """
    leaves = jax.tree.leaves(tree, is_leaf=is_row_sparse)
    return _all_finite([leaf for leaf in leaves if _is_floating(leaf)])


@jax.jit
def _all_finite(leaves: list[Any]) -> jax.Array:
    if not leaves:
        return jnp.asarray(True)
    values = [leaf.inside() if isinstance(leaf, RowSparse) else leaf for leaf in leaves]
    return jnp.all(jnp.stack([_is_finite(_wide(each)) for each in values]))


def _is_finite(array: jax.Array) -> jax.Array:
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        return _is_finite(array.real) & _is_finite(array.imag)
    # The largest element says it: NaN is larger than all. XLA's CPU loops find it three times as
    # fast as they ask every element.
    return jnp.isfinite(jnp.max(jnp.abs(array), initial=0))


def clip_global_norm(tree: Tree, max_norm: Any) -> tuple[Tree, jax.Array]:
    r"""Scales a tree of gradients down to a norm over all its elements.

    .. math:: g \min\left(1, \frac{\mathrm{max\_norm}}{\|g\| + 10^{-8}}\right)

    As mxnet.gluon.utils.clip_global_norm, save that norms are computed in float32 at least, and
    that gradients whose norm is not finite come back unchanged, where MXNet makes NaN of all of
    them: `first_nonfinite` still finds the culprit. Guard the update by
    `where=jnp.isfinite(norm)`.

    Args:
        tree: gradients; leaves may be `RowSparse`, duplicate rows of which add up first.
        max_norm: 0 or more.

    Raises:
        ValueError: max_norm is below 0.
        TypeError: it is no number.

    Returns:
        The gradients in their own dtypes, and the norm that they had.

    Example:
        >>> import jax.numpy as jnp
        >>> grads, norm = clip_global_norm({"w": jnp.array([3.0, 4.0])}, 1.0)
        >>> print(grads["w"], norm)
        [0.6 0.8] 5.0
    """
    is_array = isinstance(max_norm, (jax.Array, np.ndarray))
    if not is_array and not isinstance(max_norm, (int, float, np.number)):
        kind = type(max_norm).__name__
        raise TypeError(f"clip_global_norm: max_norm must be a number, got {kind}; it is second.")
    if not is_array and not max_norm >= 0:
        raise ValueError(f"clip_global_norm: max_norm must be 0 or more, got {max_norm!r}.")
    return _clip_global_norm(tree, max_norm)


@jax.jit
def _clip_global_norm(tree: Any, max_norm: Any) -> tuple[Any, jax.Array]:
    leaves = jax.tree.leaves(tree, is_leaf=is_row_sparse)
    floating = [leaf for leaf in leaves if _is_floating(leaf)]
    factor, norm = clip_factor(floating, [1.0] * len(floating), max_norm)
    return multiplied(tree, factor, keep=True), norm


def clip_factor(
    grads: Sequence[Any], scales: Sequence[Any], max_norm: Any
) -> tuple[jax.Array, jax.Array]:
    """What `clip_global_norm` multiplies gradients by, and their norm.

    Args:
        grads: floating arrays and `RowSparse`.
        scales: a number for each, which multiplies it before.
        max_norm: 0 or more.
    """
    arrays = [_array(grad) for grad in grads]
    norm = _norm(arrays, scales)
    # Squares may overflow where no gradient does.
    norm = lax.cond(jnp.isinf(norm), lambda: _norm_of_large(arrays, scales, norm), lambda: norm)
    factor = jnp.minimum(lax.convert_element_type(max_norm, norm.dtype) / (norm + 1e-8), 1)
    return jnp.where(jnp.isfinite(norm), factor, 1), norm


def _norm(arrays: Sequence[Any], scales: Sequence[Any]) -> jax.Array:
    """The norm over all elements, in float64 if any of them is."""
    squares = [jnp.sum(jnp.real(array * jnp.conj(array))) for array in arrays]
    dtype = jnp.float64 if any(x.dtype == jnp.float64 for x in squares) else jnp.float32
    total = jnp.zeros((), dtype)
    for square, scale in zip(squares, scales, strict=True):
        total += square.astype(dtype) * lax.convert_element_type(scale, dtype) ** 2
    return jnp.sqrt(total)


def _norm_of_large(arrays: Sequence[Any], scales: Sequence[Any], norm: jax.Array) -> jax.Array:
    """The norm with squares in units of the largest element, where that is finite."""
    sizes = [
        jnp.abs(array).astype(norm.dtype) * jnp.abs(lax.convert_element_type(scale, norm.dtype))
        for array, scale in zip(arrays, scales, strict=True)
    ]
    largest = jnp.zeros_like(norm)
    for size in sizes:
        largest = jnp.maximum(largest, jnp.max(size, initial=0))
    squares = (jnp.sum(jnp.square(size / largest)) for size in sizes)
    scaled = largest * jnp.sqrt(sum(squares, jnp.zeros_like(norm)))
    return jnp.where(jnp.isfinite(largest), scaled, norm)


def _array(leaf: Any) -> jax.Array:
    """The elements of a gradient, of a `RowSparse` those of its rows, in a dtype for sums."""
    wide = _wide(leaf)
    return wide.unique().inside(leaf.shape[0]) if isinstance(leaf, RowSparse) else wide


def first_nonfinite(tree: Any) -> NonFinite | None:
    """Finds the first leaf of a tree that holds NaN or infinity: an aid when a loss becomes NaN.

    It brings the tree to the host. Inside `jax.jit` use it through
    `jax.debug.callback(lambda grads: print(first_nonfinite(grads)), grads)`.

    Args:
        tree: any pytree of arrays, such as gradients, weights or a state.

    Returns:
        The path and what was found there; None where all is finite.

    Raises:
        TypeError: the tree is being traced.

    Example:
        >>> import numpy as np
        >>> print(first_nonfinite({"decoder": [np.ones(2), np.array([1.0, np.nan, np.inf])]}))
        'decoder/1' holds 1 NaN and 1 infinities in 3
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if isinstance(leaf, Tracer):
            raise TypeError(
                "first_nonfinite: tree must hold known values, got a traced one at "
                f"{path_name(path)!r}; inside jax.jit call it through jax.debug.callback."
            )
        if not _is_floating(leaf):
            continue
        # NumPy does not know whether its guests, such as bfloat16, are finite.
        host = np.asarray(leaf)
        host = host.astype(np.float32) if host.dtype.itemsize < 4 else host
        if not np.isfinite(host).all():
            nan = int(np.isnan(host).sum())
            return NonFinite(path_name(path), nan, int(np.isinf(host).sum()), host.size)
    return None


def _is_floating(leaf: Any) -> bool:
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    return jnp.issubdtype(dtype, jnp.inexact)


def _wide(leaf: Any) -> Any:
    """The leaf in the dtype that its arithmetic is in."""
    leaf = leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)
    return leaf.astype(compute_dtype(leaf.dtype))


def multiplied(tree: Any, factor: jax.Array, keep: bool = False) -> Any:
    """Multiplies the floating leaves, in float32 at least, and in the end in their own dtype."""

    def multiplied(leaf: Any) -> Any:
        if not _is_floating(leaf):
            return leaf
        wide = _wide(leaf)
        product = wide * factor.astype(wide.dtype)
        return product.astype(leaf.dtype) if keep else product

    return jax.tree.map(multiplied, tree)
