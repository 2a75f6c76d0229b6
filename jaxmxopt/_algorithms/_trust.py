"""Trust ratio of LAMB and LANS."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmxopt._core.numeric import maximum, minimum, norm

__all__ = ["bounded", "trust_ratio"]


def bounded(size: jax.Array, lower: Any, upper: Any) -> jax.Array:
    """Return the norm of a weight within its bounds; a bound of None or 0 limits nothing."""
    if lower is not None:
        size = maximum(size, lower)
    if upper is not None:
        size = minimum(size, jnp.where(upper > 0, upper, jnp.inf))
    return size


def trust_ratio(size: jax.Array, move: jax.Array) -> jax.Array:
    """Return the ratio of a weight's norm to the norm of its move; 1 where one of them is 0."""
    moved = norm(move)
    both = (size != 0) & (moved != 0)
    return jnp.where(both, size / jnp.where(both, moved, 1), 1)
