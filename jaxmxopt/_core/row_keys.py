"""Row numbers as random keys: integers that no arithmetic over the leaves of a tree can change.

They are held in the dtype of random keys, for which JAX defines neither addition nor
multiplication: `jax.tree.map(lambda leaf: 2 * leaf, tree)` raises TypeError, and `jit`, `vmap`,
`scan`, devices and shardings take them as any array.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

__all__ = ["as_integers", "as_keys", "host_integers", "is_keys"]

# Two words of 32 bits for each number.
_KIND = "threefry2x32"


def is_keys(leaf: Any) -> bool:
    """True if a leaf is an array of keys, or describes one."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def as_keys(integers: Any) -> jax.Array:
    """Return integers of any shape and dtype as keys, on their devices.

    Nothing is compiled for those that are NumPy's or on one device.
    """
    if isinstance(integers, np.ndarray):
        # Two's complement, the lower word first whatever the machine's order.
        words = integers.astype("<i8").view("<u4").reshape(*integers.shape, 2)
        return jax.random.wrap_key_data(jax.device_put(words.astype(np.uint32)), impl=_KIND)
    if not isinstance(integers, Tracer) and len(integers.sharding.device_set) == 1:
        keys = as_keys(np.asarray(integers))
        return jax.device_put(keys, integers.sharding) if integers.committed else keys
    if integers.dtype.itemsize == 8:
        words = lax.bitcast_convert_type(integers, jnp.uint32)
    else:
        wide = integers if integers.dtype == jnp.uint32 else integers.astype(jnp.int32)
        low = lax.bitcast_convert_type(wide, jnp.uint32)
        words = jnp.stack([low, jnp.zeros_like(low)], axis=-1)
    return jax.random.wrap_key_data(words, impl=_KIND)


def as_integers(keys: Any, dtype: Any) -> Any:
    """Return the integers in their dtype; of a description of the array, their description."""
    dtype = np.dtype(jax.dtypes.canonicalize_dtype(dtype))
    if isinstance(keys, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(keys.shape, dtype, sharding=keys.sharding)
    words = jax.random.key_data(keys)
    if dtype.itemsize == 8:
        return lax.bitcast_convert_type(words, dtype)
    kind = jnp.uint32 if dtype == np.uint32 else jnp.int32
    return lax.bitcast_convert_type(words[..., 0], kind).astype(dtype)


def host_integers(keys: jax.Array, dtype: Any) -> np.ndarray:
    """Return the integers on the host; nothing is compiled for their number."""
    words = np.asarray(jax.random.key_data(keys))
    return np.ascontiguousarray(words, "<u4").view("<i8")[..., 0].astype(dtype)
