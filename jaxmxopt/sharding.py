"""States over a mesh of devices: as the weights are, or divided among replicas.

Both functions give shardings for `jax.jit`, a tree like `opt.init(params)`::

    shardings = sharding.divided(opt, params, "data")
    state = jax.jit(opt.init, out_shardings=shardings)(params)
    step = jax.jit(train_step, out_shardings=(weight_shardings, shardings), donate_argnums=(0, 1))

The update itself is the same everywhere: XLA partitions it.
"""

from jaxmxopt._core.sharding import bytes_per_device as bytes_per_device
from jaxmxopt._core.sharding import divided as divided
from jaxmxopt._core.sharding import like_weights as like_weights

__all__ = [
    "bytes_per_device",
    "divided",
    "like_weights",
]
