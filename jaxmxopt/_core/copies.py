"""The host's arrays on their way to a device.

NumPy arrays are copied: the caller may write to one while a program reads it.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

__all__ = ["moved", "on_device", "private"]


def on_device(array: np.ndarray) -> jax.Array:
    """Return a copy of an array of NumPy's on the device; nothing is compiled for its shape."""
    # On a CPU what is put there is the memory itself.
    return jax.device_put(np.array(array))


def private(tree: Any) -> Any:
    """Return a tree with copies of the arrays of NumPy's in it, for a compiled function."""
    leaves, structure = jax.tree.flatten(tree)
    if not any(isinstance(leaf, np.ndarray) for leaf in leaves):
        return tree
    return structure.unflatten(
        [np.array(leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in leaves]
    )


def moved(numbers: np.ndarray, weight: Any) -> Any:
    """Return numbers of an update, moved to the devices of a weight if transfers are watched.

    A compiled function moves what comes from the host by itself, which `jax.transfer_guard` calls
    implicit. To move it explicitly takes several times as long.
    """
    if jax.config.jax_transfer_guard_host_to_device in (None, "allow"):  # pyright: ignore[reportAttributeAccessIssue]
        return numbers
    place = getattr(weight, "sharding", None)
    if isinstance(place, NamedSharding):
        return jax.device_put(numbers, NamedSharding(place.mesh, PartitionSpec()))
    return jax.device_put(numbers)
