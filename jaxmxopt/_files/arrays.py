"""Arrays on the host, as a file holds them, and back onto their devices.

All are little-endian. A dtype that NumPy's format lacks (bfloat16, float8, int4) is stored as
unsigned integers of its width, random keys as the numbers that they consist of.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["described", "dtype_named", "free_array", "on_host", "place", "stored_dtype", "to_host"]

# All dtypes of JAX by name.
_DTYPES = {
    np.dtype(kind).name: np.dtype(kind)
    for kind in vars(jnp).values()
    if isinstance(kind, type(jnp.float32))
}


def dtype_named(name: str) -> np.dtype[Any]:
    """Return the dtype of a name."""
    if name not in _DTYPES:
        raise ValueError(f"dtype {name!r} is unknown.")
    return _DTYPES[name]


def stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of the elements in a file."""
    native = dtype.isbuiltin == 1
    return (dtype if native else np.dtype(f"u{dtype.itemsize}")).newbyteorder("<")


def key_impl(value: Any) -> str | None:
    """Return the algorithm of an array of random keys, None for other arrays."""
    if not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return None
    if isinstance(value, jax.Array):
        return str(jax.random.key_impl(value))
    # Of an abstract value only the dtype is known.
    for impl in ("threefry2x32", "rbg", "unsafe_rbg"):
        if jax.eval_shape(partial(jax.random.key, impl=impl), 0).dtype == value.dtype:
            return impl
    raise ValueError(f"random keys must be of an algorithm of JAX, got {value.dtype}.")


def described(name: str, value: Any) -> dict[str, Any]:
    """Describe an array, real or abstract, for the header: name, dtype, shape, random algorithm.

    Raises:
        TypeError: the dtype is not one of JAX.
    """
    if (impl := key_impl(value)) is not None:
        value = jax.eval_shape(jax.random.key_data, value)
    if value.dtype.name not in _DTYPES:
        raise TypeError(f"{name!r} must be of a dtype of JAX, got {value.dtype}.")
    record = {"array": name, "dtype": value.dtype.name, "shape": list(value.shape)}
    return record if impl is None else {**record, "key": impl}


def to_host(name: str, value: Any) -> np.ndarray:
    """Return the elements of an array, its shards put together."""
    if not isinstance(value, jax.Array):
        return np.asarray(value)
    if value.is_deleted():
        raise ValueError(f"{name!r} must be alive, got an array that was donated or deleted.")
    if not value.is_fully_addressable:
        raise ValueError(
            f"{name!r} must lie on devices of this process, got {value.sharding}; gather it first."
        )
    if key_impl(value) is not None:
        value = jax.random.key_data(value)
    shards = value.addressable_shards
    if len(shards) == 1:
        return np.asarray(value)
    whole = np.empty(value.shape, value.dtype)
    for shard in shards:
        if shard.replica_id == 0:
            whole[shard.index] = np.asarray(shard.data)
    return whole


def on_host(arrays: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Brings arrays to the host one by one, by name."""
    for name, array in arrays.items():
        yield name, to_host(name, array)


def place(parts: Sequence[np.ndarray], like: Any) -> Any:
    """Make an array of the kind of `like`, on its devices, of one part or of several stacked.

    Args:
        parts: of the right dtype and shape.
        like: a NumPy or JAX array, or a `jax.ShapeDtypeStruct`.
    """
    host = parts[0] if len(parts) == 1 else np.stack(parts)
    if isinstance(like, np.generic):
        return host[()]
    if isinstance(like, np.ndarray):
        return np.array(host)
    # An abstract array with a sharding is bound to it.
    free = isinstance(like, jax.Array) and not like.committed
    sharding = None if free else like.sharding
    if (impl := key_impl(like)) is not None:
        keys = jax.random.wrap_key_data(jnp.asarray(host), impl=impl)
        return keys if sharding is None else jax.device_put(keys, sharding)
    return jnp.asarray(host) if sharding is None else jax.device_put(host, sharding)


def free_array(host: np.ndarray, impl: str | None) -> Any:
    """Make a JAX array that may move between devices; of a dtype that JAX would cut, NumPy's."""
    if impl is not None:
        return jax.random.wrap_key_data(jnp.asarray(host), impl=impl)
    kept = jax.dtypes.canonicalize_dtype(host.dtype) == host.dtype
    return jnp.asarray(host) if kept else np.array(host)
