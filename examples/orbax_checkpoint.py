"""Keeps weights and divided optimizer state with orbax, and goes on with other devices.

    python examples/orbax_checkpoint.py          # a few seconds; --quick for a taste

Eight devices train, each with an eighth of the optimizer state; orbax writes what they hold. Then
four devices read it, each a quarter, and go on: they end with the weights that eight end with, up
to rounding. Where there are fewer than eight devices, the CPU is split into eight.
"""

import argparse
import os
import pathlib
import tempfile

# Read when jax is imported, so before it; only CPUs are told.
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    )

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits

import jaxmxopt as mxopt
from jaxmxopt import sharding

BATCH = 128
OPT = mxopt.Adam(learning_rate=3e-3, wd=1e-4, wd_mult={"*/bias": 0.0})


def init_params(key: jax.Array) -> dict[str, Any]:
    """Two dense layers: He-normal kernels, zero biases."""
    keys = jax.random.split(key)
    return {
        "hidden": {"kernel": jax.random.normal(keys[0], (64, 128)) / 6, "bias": jnp.zeros(128)},
        "logits": {"kernel": jax.random.normal(keys[1], (128, 10)) / 8, "bias": jnp.zeros(10)},
    }


def predict(params: dict[str, Any], images: jax.Array) -> jax.Array:
    """Return the logits of a batch of images."""
    x = jax.nn.relu(images @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return x @ params["logits"]["kernel"] + params["logits"]["bias"]


def mesh_of(devices: int) -> Mesh:
    """Return the first devices, in a row."""
    return jax.make_mesh(
        (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )


def placed(mesh: Mesh) -> tuple[Any, Any]:
    """Shapes and places of the weights, whole everywhere, and of the state, divided."""
    whole = NamedSharding(mesh, PartitionSpec())
    shapes = jax.eval_shape(init_params, jax.random.key(0))
    params = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=whole), shapes)
    places = sharding.divided(OPT, params, "data")
    state = jax.tree.map(
        lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
        jax.eval_shape(OPT.init, params),
        places,
    )
    return params, state


def trainer(mesh: Mesh, images: np.ndarray, labels: np.ndarray) -> Callable[..., Any]:
    """Return a function that trains from one step to another on the devices of a mesh."""
    rows = NamedSharding(mesh, PartitionSpec("data"))
    places = jax.tree.map(lambda leaf: leaf.sharding, placed(mesh))

    def train_step(params: Any, state: Any, images: jax.Array, labels: jax.Array) -> Any:
        def loss_of(params: Any) -> jax.Array:
            chances = jax.nn.log_softmax(predict(params, images))
            return -jnp.mean(jnp.take_along_axis(chances, labels[:, None], axis=1))

        return OPT.step(params, jax.grad(loss_of)(params), state)

    jitted = jax.jit(train_step, out_shardings=places, donate_argnums=(0, 1))

    def train(params: Any, state: Any, steps: range) -> tuple[Any, Any]:
        for step in steps:
            batch = np.random.default_rng(step).integers(0, 1440, BATCH)
            params, state = jitted(
                params, state, *jax.device_put((images[batch], labels[batch]), rows)
            )
            # Too many steps in flight would leave the collectives of a split CPU no threads.
            jax.block_until_ready(params)
        return params, state

    return train


def main(arguments: list[str] | None = None) -> float:
    """Trains, keeps, restores, goes on; returns how far the two trainings end from each other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 steps only")
    steps = 100 if parser.parse_args(arguments).quick else 400

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = (images[order] / 16).astype(np.float32), labels[order]

    eight, four = mesh_of(8), mesh_of(4)
    train = trainer(eight, images, labels)
    places = jax.tree.map(lambda leaf: leaf.sharding, placed(eight))
    params = jax.jit(init_params, out_shardings=places[0])(jax.random.key(0))
    state = jax.jit(OPT.init, out_shardings=places[1])(params)
    params, state = train(params, state, range(steps // 2))

    with (
        tempfile.TemporaryDirectory() as folder,
        ocp.StandardCheckpointer() as checkpointer,
    ):
        path = pathlib.Path(folder) / "half_way"
        checkpointer.save(path, (params, state))
        checkpointer.wait_until_finished()
        # As another process would: from shapes and places alone.
        restored = checkpointer.restore(path, placed(four))
    for tree, devices in ((state, 8), (restored[1], 4)):
        held = max(sharding.bytes_per_device(tree).values())
        print(f"state on {devices} devices: {held:,} bytes on each")

    params, _ = train(params, state, range(steps // 2, steps))
    others, _ = trainer(four, images, labels)(*restored, range(steps // 2, steps))
    for name, weights in (("without a break", params), ("restored, on four devices", others)):
        right = jnp.argmax(predict(weights, images[1440:]), axis=1) == labels[1440:]
        print(f"held out, {name}: {float(jnp.mean(right)):.2%}")
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(others), strict=True)
    apart = max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs)
    print(f"largest difference of any weight: {apart:.1e}")
    return apart


if __name__ == "__main__":
    main()
