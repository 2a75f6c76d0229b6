"""What an `update` that a user wrote gives back, made to be what MXNet would have kept."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["accepted", "accepted_list"]


def accepted(call: str, index: Any, weight: Any, state: Any, updated: Any) -> tuple[Any, Any]:
    """The new weight, in the dtype of the old one, and the new state.

    In MXNet `weight[:] = ...` keeps shape and dtype; here what is returned takes its place.

    Args:
        call: for errors, as is the index.
        index: of the weight.
        weight: before the update.
        state: before the update.
        updated: what the update returned.
    """
    where = f"{call}({index!r})"
    if not isinstance(updated, (tuple, list)) or len(updated) != 2:
        raise TypeError(
            f"{where}: must return (weight, state), as arrays do not change in place, "
            f"got {type(updated).__name__}."
        )
    new, new_state = updated
    if not hasattr(new, "shape") or not hasattr(new, "dtype"):
        raise TypeError(
            f"{where}: weight must be an array, got {type(new).__name__}; return (weight, state)."
        )
    if new.shape != jnp.shape(weight):
        raise ValueError(f"{where}: weight must have shape {jnp.shape(weight)}, got {new.shape}.")
    if isinstance(state, (tuple, list, dict)) and state and hasattr(new_state, "shape"):
        raise TypeError(
            f"{where}: state must be a {type(state).__name__}, as it was, got an array; return "
            "(weight, state)."
        )
    dtype = getattr(weight, "dtype", new.dtype)
    if new.dtype != dtype:
        if jnp.issubdtype(new.dtype, jnp.complexfloating):
            raise TypeError(f"{where}: weight must be real, got dtype {new.dtype}.")
        new = new.astype(dtype)
    return new, new_state


def accepted_list(
    call: str, indices: Sequence[Any], weights: Sequence[Any], states: Any, updated: Any
) -> list[tuple[Any, Any]]:
    """The same of several weights: two lists, as pairs."""
    parts: Any = updated if isinstance(updated, (tuple, list)) else ()
    if len(parts) != 2 or any(
        not isinstance(part, (tuple, list)) or len(part) != len(indices) for part in parts
    ):
        given = type(updated).__name__ if len(parts) != 2 else jax.tree.map(jnp.shape, parts)
        raise TypeError(
            f"{call}({list(indices)!r}): must return (weight, state), two lists of "
            f"{len(indices)}, as arrays do not change in place, got {given}."
        )
    rows = zip(indices, weights, states, *parts, strict=True)
    return [accepted(call, i, w, old, (new, state)) for i, w, old, new, state in rows]
