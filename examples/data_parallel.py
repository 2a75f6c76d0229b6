"""Trains on handwritten digits over eight devices, optimizer state divided among them (ZeRO-1).

    python examples/data_parallel.py          # about 20 seconds on a laptop
    python examples/data_parallel.py --quick  # a few seconds

Every device has all weights and an eighth of each batch; slots and float32 masters are cut in
eight. The same training on one device ends with the same weights up to rounding. Where there are
fewer than eight devices, the CPU is split into eight.
"""

import argparse
import os

# Read when jax is imported, so before it; only CPUs are told.
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    )

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits

import jaxmxopt as mxopt
from jaxmxopt import sharding
from jaxmxopt.lr_scheduler import CosineScheduler

DEVICES = 8
BATCH = 128
WIDTHS = (64, 512, 512, 10)


class Digits(NamedTuple):
    """Rows of 64 numbers in [0, 1] and their digits; a fifth is held out."""

    images: np.ndarray
    labels: np.ndarray
    held_out_images: np.ndarray
    held_out_labels: np.ndarray


def load() -> Digits:
    """Return the 1,797 digits that scikit-learn ships."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = (digits.images[order].reshape(-1, 64) / 16).astype(np.float32)
    labels = digits.target[order].astype(np.int32)
    first = len(order) // 5
    return Digits(images[first:], labels[first:], images[:first], labels[:first])


def init_params(seed: int) -> dict[str, Any]:
    """Dense layers in bfloat16: He-normal kernels, zero biases."""
    rng = np.random.default_rng(seed)
    return {
        f"dense{number}": {
            "kernel": jnp.asarray(rng.normal(0, (2 / n) ** 0.5, (n, m)), jnp.bfloat16),
            "bias": jnp.zeros(m, jnp.bfloat16),
        }
        for number, (n, m) in enumerate(itertools.pairwise(WIDTHS))
    }


def predict(params: dict[str, Any], images: jax.Array) -> jax.Array:
    """Return the logits, in float32."""
    *hidden, last = params.values()
    x = images.astype(jnp.bfloat16)
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return (x @ last["kernel"] + last["bias"]).astype(jnp.float32)


def loss_of(params: dict[str, Any], images: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy of a batch."""
    log_probabilities = jax.nn.log_softmax(predict(params, images))
    return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[:, None], 1))


class Run(NamedTuple):
    """The end of a training, and what each device held of it."""

    accuracy: float
    params: Any
    weight_bytes: int
    state_bytes: int


def train(mesh: Mesh, data: Digits, steps: int, name: str) -> Run:
    """Trains over the devices of a mesh, the state divided among them."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    by_rows = NamedSharding(mesh, PartitionSpec("data"))
    schedule = CosineScheduler(steps, base_lr=2e-3, final_lr=2e-5, warmup_steps=min(20, steps - 1))
    opt = mxopt.AdamW(lr_scheduler=schedule, wd=1e-2, multi_precision=True)

    params = jax.device_put(init_params(0), everywhere)
    shardings = sharding.divided(opt, params, "data")
    state = jax.jit(opt.init, out_shardings=shardings)(params)

    def train_step(params: Any, state: Any, images: jax.Array, labels: jax.Array) -> Any:
        # The mean over a batch that is divided is the mean over all devices: jit adds the sum.
        loss, grads = jax.value_and_grad(loss_of)(params, images, labels)
        return *opt.step(params, grads, state), loss

    step = jax.jit(
        train_step, out_shardings=(everywhere, shardings, everywhere), donate_argnums=(0, 1)
    )
    generator = np.random.default_rng(0)
    bar = tqdm.trange(steps, desc=name, unit=" steps", ncols=80)
    for _ in bar:
        batch = generator.integers(len(data.labels), size=BATCH)
        images, labels = jax.device_put((data.images[batch], data.labels[batch]), by_rows)
        params, state, loss = step(params, state, images, labels)
        # Devices that share few cores must not wait for each other in several steps at once.
        loss.block_until_ready()
    bar.set_postfix_str(f"loss {float(loss):.3f}")
    bar.close()
    guesses = jnp.argmax(predict(params, jnp.asarray(data.held_out_images)), 1)
    return Run(
        float(np.mean(np.asarray(guesses) == data.held_out_labels)),
        jax.device_get(params),
        max(sharding.bytes_per_device(params).values()),
        max(sharding.bytes_per_device(state).values()),
    )


def mesh_of(count: int) -> Mesh:
    """Return a mesh of so many devices with one axis, `data`."""
    devices = jax.devices() if len(jax.devices()) >= DEVICES else jax.devices("cpu")
    return Mesh(np.array(devices[:count]), ("data",), axis_types=(AxisType.Auto,))


def main(arguments: list[str] | None = None) -> tuple[Run, Run]:
    """Trains over eight devices and on one, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", "--short", action="store_true", help="a few steps only")
    steps = 25 if parser.parse_args(arguments).quick else 300
    data = load()
    divided = train(mesh_of(DEVICES), data, steps, f"{DEVICES} devices")
    whole = train(mesh_of(1), data, steps, "one device")
    print(f"held-out accuracy: {divided.accuracy:.2%} (one device: {whole.accuracy:.2%})")
    print(f"bytes on each of  {'weights':>9} {'state':>9}")
    for name, run in ((f"{DEVICES} devices", divided), ("one device", whole)):
        print(f"{name:<17} {run.weight_bytes:>9,} {run.state_bytes:>9,}")
    print(f"state per device, against undivided: 1/{whole.state_bytes / divided.state_bytes:.2f}")
    return divided, whole


if __name__ == "__main__":
    main()
