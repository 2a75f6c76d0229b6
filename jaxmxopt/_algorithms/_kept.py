"""Updates that must not happen."""

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["kept_unless", "usable_scale"]


def kept_unless(condition: jax.Array, old: Any, new: Any) -> Any:
    """Returns `new` where a scalar condition holds, else `old`: both of one structure."""
    return jax.tree.map(lambda old, new: jnp.where(condition, new, old), old, new)


def usable_scale(opt: Any) -> jax.Array:
    """Whether `rescale_grad` is a finite number other than 0; MXNet 2.x skips updates else."""
    return jnp.isfinite(opt.rescale_grad) & (opt.rescale_grad != 0)
