"""One of two processes that train together: `sharding_worker.py PORT NUMBER FOLDER`.

Each has two devices. Writes the weights of every algorithm, its state divided over all four, to
`FOLDER/NUMBER.npz`, and how many bytes of the state each device holds.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from samples import ALGORITHMS, OF_PRODUCTS, is_real, make

from jaxmxopt import sharding

# What such a process is started with. Nobody waits for its programs to run, but to compile.
SETTINGS = {
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true",
    "JAX_PLATFORMS": "cpu",
}

SHAPES = {"kernel": (16, 6), "table": (3, 16), "odd": (3, 5)}


def draw(seed):
    rng = np.random.default_rng(seed)
    return {key: rng.normal(size=shape).astype(np.float32) for key, shape in SHAPES.items()}


def main(port, number, folder):
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(number))
    whole = NamedSharding(jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,)), P())
    shared = lambda tree: jax.tree.map(  # noqa: E731
        lambda leaf: jax.make_array_from_callback(leaf.shape, whole, lambda index: leaf[index]),
        tree,
    )
    ended = {}
    for cls in ALGORITHMS:
        if cls.__name__ in OF_PRODUCTS:
            continue
        opt = make(cls)
        params, grads = shared(draw(0)), shared(draw(1))
        shardings = sharding.divided(opt, params)
        step = jax.jit(opt.step, out_shardings=(dict.fromkeys(params, whole), shardings))
        state = jax.jit(opt.init, out_shardings=shardings)(params)
        for _ in range(2):
            params, state = step(params, grads, state)
        for key, leaf in params.items():
            ended[f"{cls.__name__}/{key}"] = np.asarray(leaf.addressable_data(0))
        counts = sharding.bytes_per_device(
            [leaf for leaf in jax.tree.leaves(state) if is_real(leaf)]
        )
        ended[f"{cls.__name__}/bytes"] = [counts.get(device, 0) for device in jax.local_devices()]
    np.savez(Path(folder) / f"{number}.npz", **ended)


if __name__ == "__main__":
    main(*sys.argv[1:])
