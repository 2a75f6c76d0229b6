"""Functions of whole trees of gradients: are they finite, how long are they, which is to blame."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxmxopt._core.copies import private
from jaxmxopt._core.names import path_name
from jaxmxopt._core.numeric import compute_dtype
from jaxmxopt._core.sparse import RowSparse, is_row_sparse

__all__ = [
    "NonFinite",
    "all_finite",
    "clip_factors",
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
    """Return a scalar bool: True if no leaf of a tree holds NaN or infinity.

    The guard of an update: `opt.step(params, grads, state, where=all_finite(grads))` changes
    nothing, counts included, where a gradient is not finite.

    Args:
        tree: any pytree of arrays; integers and random keys are finite, and so are rows of a
            `RowSparse` whose index is out of range.
    """
    leaves = jax.tree.leaves(tree, is_leaf=is_row_sparse)
    return _all_finite(private([leaf for leaf in leaves if _is_floating(leaf)]))


@jax.jit
def _all_finite(leaves: list[Any]) -> jax.Array:
    if not leaves:
        return jnp.asarray(True)
    values = [leaf.inside() if isinstance(leaf, RowSparse) else leaf for leaf in leaves]
    return jnp.all(jnp.stack([_is_finite(_wide(each)) for each in values]))


def _is_finite(array: jax.Array) -> jax.Array:
    """True if every element is finite.

    NaN and infinity times 0 are NaN, and a sum keeps NaN; a maximum does not on every backend. On
    a CPU this takes a third of the time of asking every element.
    """
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        return _is_finite(array.real) & _is_finite(array.imag)
    return jnp.isfinite(jnp.sum(array * 0))


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
    return _clip_global_norm(*private((tree, max_norm)))


@jax.jit
def _clip_global_norm(tree: Any, max_norm: Any) -> tuple[Any, jax.Array]:
    leaves = jax.tree.leaves(tree, is_leaf=is_row_sparse)
    floating = [leaf for leaf in leaves if _is_floating(leaf)]
    factors, norm = clip_factors(floating, [1.0] * len(floating), max_norm)
    return multiplied(tree, *factors, keep=True), norm


def clip_factors(
    grads: Sequence[Any], scales: Sequence[Any], max_norm: Any
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """Return what `clip_global_norm` multiplies gradients by, as two factors, and their norm.

    The product of the factors may be below the smallest number where neither factor is.

    Args:
        grads: floating arrays and `RowSparse`.
        scales: a number for each, which multiplies it before.
        max_norm: 0 or more.
    """
    arrays = [_array(grad) for grad in grads]
    wide = any(array.dtype.itemsize == (8 << _is_complex(array)) for array in arrays)
    dtype = jnp.dtype(jnp.float64 if wide else jnp.float32)
    scales = [jnp.abs(lax.convert_element_type(scale, dtype)) for scale in scales]
    unit, root = _norm(arrays, scales, dtype)
    known = jnp.isfinite(unit) & jnp.isfinite(root)
    # The norm may be above the largest number, and what it divides below the smallest one.
    first = jnp.where(known & (unit > 2.0**60), 2.0**-60, 1).astype(dtype)
    second = lax.convert_element_type(max_norm, dtype) / (unit * first)
    second = second / (root + 1e-8 / unit)
    clips = known & (second * first < 1)
    return (jnp.where(clips, first, 1), jnp.where(clips, second, 1)), unit * root


def _is_complex(array: jax.Array) -> bool:
    """True if the elements are complex."""
    return jnp.issubdtype(array.dtype, jnp.complexfloating)


def _norm(arrays: Sequence[Any], scales: Sequence[Any], dtype: Any) -> tuple[Any, Any]:
    """Return the norm over all elements as a unit and a factor of it.

    The squares are summed as they are. Only where they overflowed, or may have lost what counts,
    the elements are read again and divided by the largest one first.
    """
    if not arrays:
        return jnp.ones((), dtype), jnp.zeros((), dtype)
    squares = [jnp.sum(jnp.real(array * jnp.conj(array))).astype(dtype) for array in arrays]
    norms = [jnp.sqrt(square) * scale for square, scale in zip(squares, scales, strict=True)]
    norm = jnp.sqrt(sum(jnp.square(each) for each in norms))
    # Squares below the smallest number are lost: at most so much of each norm.
    least = math.sqrt(float(jnp.finfo(dtype).tiny))
    lost = sum(
        math.sqrt(array.size) * least * scale for array, scale in zip(arrays, scales, strict=True)
    )
    exact = jnp.isfinite(norm) & (norm > least / float(jnp.finfo(dtype).eps))
    exact &= lost <= norm * float(jnp.finfo(dtype).eps)
    for square in squares:
        exact &= jnp.isfinite(square)
    return lax.cond(
        exact, lambda: (jnp.ones_like(norm), norm), lambda: _scaled_norm(arrays, scales, norm)
    )


def _scaled_norm(arrays: Sequence[Any], scales: Sequence[Any], norm: Any) -> tuple[Any, Any]:
    """Return the norm in units of the largest element, or `norm` where one is not finite."""
    finite = jnp.asarray(True)
    parts: list[tuple[Any, Any]] = []
    for array, scale in zip(arrays, scales, strict=True):
        finite &= _is_finite(array)
        sizes = jnp.abs(array).astype(norm.dtype)
        largest = jnp.max(sizes, initial=0)
        divided = _quotient(sizes, jnp.where(largest > 0, largest, 1))
        parts.append((largest * scale, jnp.sqrt(jnp.sum(jnp.square(divided)))))
    unit = jnp.max(jnp.stack([largest for largest, _ in parts]))
    unit = jnp.where(unit > 0, unit, 1)
    root = jnp.sqrt(sum(jnp.square(_quotient(largest, unit) * root) for largest, root in parts))
    # All is known to be finite where it counts, so the maxima above have met no NaN.
    return jnp.where(finite, unit, 1), jnp.where(finite, root, norm + jnp.inf)


def _quotient(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return a / b, exact to rounding although 1 / b may be no normal number."""
    shrunk = jnp.where(b > 2.0**60, 2.0**-60, jnp.where(b < 2.0**-60, 2.0**60, 1)).astype(b.dtype)
    return a * shrunk / (b * shrunk)


def _array(leaf: Any) -> jax.Array:
    """Return the elements of a gradient, or of the rows of a `RowSparse`, in a dtype for sums."""
    wide = _wide(leaf)
    return wide.unique().inside(leaf.shape[0]) if isinstance(leaf, RowSparse) else wide


def first_nonfinite(tree: Any) -> NonFinite | None:
    """Find the first leaf of a tree that holds NaN or infinity: an aid when a loss becomes NaN.

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
    """Return the leaf in the dtype that its arithmetic is in."""
    leaf = leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)
    return leaf.astype(compute_dtype(leaf.dtype))


def multiplied(tree: Any, *factors: jax.Array, keep: bool = False) -> Any:
    """Multiply the floating leaves in float32 at least; `keep` says to return their own dtype."""

    def multiplied(leaf: Any) -> Any:
        if not _is_floating(leaf):
            return leaf
        product = _wide(leaf)
        for factor in factors:
            product = product * factor.astype(product.dtype)
        return product.astype(leaf.dtype) if keep else product

    return jax.tree.map(multiplied, private(tree))
