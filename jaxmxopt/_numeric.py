"""Arithmetic that rules share; scalars may be Python floats (double precision) or traced."""

import math
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["clip", "norm", "one_minus_power", "sign", "sqrt", "zeros_like"]


def one_minus_power(beta: Any, t: Any) -> Any:
    r"""Returns :math:`1 - \beta^t` for `t >= 1`.

    On the host in double precision; traced, to a few units of rounding for every `t` up to ten
    million, where `1 - beta**t` would cancel.
    """
    if isinstance(t, int):
        return 1.0 - beta**t
    return -jnp.expm1(t.astype(beta.dtype) * jnp.log1p(beta - 1))


def sqrt(x: Any) -> Any:
    """Returns the square root of a host or traced number."""
    return math.sqrt(x) if isinstance(x, float) else jnp.sqrt(x)


def clip(x: jax.Array, bound: Any) -> jax.Array:
    """Limits every element to `[-bound, bound]`; None, zero and below mean no limit."""
    if bound is None:
        return x
    bound = jnp.where(bound > 0, bound, jnp.inf)
    return jnp.minimum(jnp.maximum(x, -bound), bound)


def sign(x: jax.Array) -> jax.Array:
    """Returns -1, 0 or 1; NaN gives 0, as in MXNet."""
    return (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)


def norm(x: jax.Array) -> jax.Array:
    """Returns the Euclidean norm over all elements."""
    return jnp.sqrt(jnp.sum(jnp.square(x)))


def zeros_like(weight: jax.Array) -> jax.Array:
    """A slot of zeros, placed as its weight is."""
    return jnp.zeros_like(weight)
