"""Arithmetic that rules share; scalars may be Python floats (double precision) or traced."""

import math
from typing import Any

import jax
import jax.numpy as jnp

__all__ = [
    "capped",
    "clip",
    "compute_dtype",
    "decay",
    "divide",
    "hidden",
    "is_floating",
    "is_zero",
    "maximum",
    "minimum",
    "norm",
    "on_cpu",
    "one_minus_power",
    "real",
    "sign",
    "sqrt",
    "squarable",
    "unless",
    "widens",
]


def compute_dtype(dtype: Any) -> Any:
    """Return the precision of the arithmetic: float32 for half precision, else the weight's own."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def widens(found: Any, wanted: Any) -> bool:
    """True if a dtype is of half precision and another, which holds all its numbers, float32."""
    return wanted == jnp.float32 and jnp.issubdtype(found, jnp.floating) and found.itemsize < 4


def on_cpu() -> bool:
    """True if JAX's default backend is a CPU, whose compiler needs to be told more.

    Asked when a program is traced: one that is lowered for another platform than the default
    computes the same, in a form that suits the default.
    """
    return jax.default_backend() == "cpu"


def one_minus_power(beta: Any, t: Any) -> Any:
    r"""Return :math:`1 - \beta^t` for `t >= 1`.

    On the host in double precision; traced, to a few units of rounding for every `t` up to ten
    million, where `1 - beta**t` would cancel.
    """
    if isinstance(t, int):
        return 1.0 - beta**t
    return -jnp.expm1(t.astype(beta.dtype) * jnp.log1p(beta - 1))


def real(t: Any, like: Any) -> Any:
    """Return a count as a real number: of the host, or traced in the dtype of a number."""
    return float(t) if isinstance(t, int) else t.astype(jnp.result_type(like))


def sqrt(x: Any) -> Any:
    """Return the square root of a host number or an array; its derivative is 0 at 0."""
    return math.sqrt(x) if isinstance(x, float) else _root(x)


@jax.custom_jvp
def _root(x: jax.Array) -> jax.Array:
    return jnp.sqrt(x)


@_root.defjvp
def _root_jvp(primals: Any, tangents: Any) -> Any:
    # sqrt'(0) is infinite: the gradient of a zero moment would be NaN.
    root = _root(primals[0])
    positive = root > 0
    return root, jnp.where(positive, tangents[0] / (2 * jnp.where(positive, root, 1)), 0)


def clip(x: jax.Array, bound: Any) -> jax.Array:
    """Limits every element to `[-bound, bound]`; None, zero and below mean no limit."""
    if bound is None:
        return x
    bound = jnp.where(bound > 0, bound, jnp.inf)
    # NaN is neither above nor below, and so stays.
    return jnp.where(x > bound, bound, jnp.where(x < -bound, -bound, x))


def maximum(a: Any, b: Any) -> Any:
    """Return the larger of two numbers; NaN if one of them is NaN."""
    return _where((a > b) | (a != a), a, b)


def minimum(a: Any, b: Any) -> Any:
    """Return the smaller of two numbers; NaN if one of them is NaN."""
    return _where((a < b) | (a != a), a, b)


def _where(condition: Any, a: Any, b: Any) -> Any:
    if isinstance(condition, bool):
        return a if condition else b
    return jnp.where(condition, a, b)


def squarable(x: jax.Array, share: Any = 1.0) -> jax.Array:
    """Return a gradient with elements so limited that `share * x * x` is finite.

    A square beyond the largest number is infinite, and NaN or no more steps follow from it. What
    is divided by the root of its own mean square is about the same for any gradient so large. NaN
    stays, and what is infinite becomes NaN.

    Args:
        x: the gradient.
        share: how many such squares are added up, or the share of one in a mean; above 0.
    """
    # A little below the root of the largest number, for the rounding of what follows.
    root = 2.0 ** (jnp.finfo(x.dtype).maxexp // 2) * (1 - 2.0**-20)
    return clip(x, root / sqrt(share)) + 0 * x


def capped(x: jax.Array) -> jax.Array:
    """Return an array in which the largest number takes the place of infinity."""
    largest = float(jnp.finfo(x.dtype).max)
    return jnp.where(x > largest, largest, x)


def sign(x: jax.Array) -> jax.Array:
    """Return -1, 0 or 1; NaN gives 0, as in MXNet."""
    return (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)


def divide(a: Any, b: Any) -> jax.Array:
    """Return `a / b`, rounded once.

    XLA on a CPU would multiply by a rounded reciprocal where `b` is a scalar or a square root, and
    would make one quotient of two.
    """
    return hidden(a, a / hidden(a, b)) if on_cpu() else a / b


def hidden(by: jax.Array, x: Any) -> jax.Array:
    """Return `x` in the shape of `by`, in a form in which XLA can find no identity.

    The condition holds for every number. LLVM removes it last, so it costs nothing.
    """
    return jnp.where((by == by) | (by != by), x, 1)


def is_floating(leaf: Any) -> bool:
    """True if a leaf is an array of a real floating dtype; leaves that are frozen may be others."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def is_zero(number: Any) -> bool:
    """True if a number is known to be 0 before compiling: the Python number, no array of it."""
    return isinstance(number, float) and number == 0.0


def decay(wd: Any, *factors: Any) -> Any:
    """Return `wd` times the factors, from left to right; 0.0 where `wd` is known to be 0.

    `0 * weight` would have to be computed, for it is NaN where the weight is not finite.
    """
    if is_zero(wd):
        return 0.0
    for factor in factors:
        wd = wd * factor
    return wd


def unless(idle: jax.Array, old: Any, new: Any) -> Any:
    """Return a pytree like both: the old arrays where `idle` is True, else the new ones."""
    return jax.tree.map(lambda before, after: jnp.where(idle, before, after), old, new)


def norm(x: jax.Array, axis: tuple[int, ...] | None = None) -> jax.Array:
    """Return the Euclidean norm over all elements, or over axes, which stay with a size of 1.

    Its gradient is 0 where it is 0.
    """
    squared = jnp.sum(jnp.square(x), axis=axis, keepdims=axis is not None)
    positive = squared != 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)
