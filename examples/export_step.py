"""Writes a whole training step to a file with `jax.export`, and trains from the file.

    python examples/export_step.py          # a few seconds; --quick for a taste

The file holds gradients, schedule and update as one program, for any number of images, for CPU and
CUDA. What reads it needs neither the network nor the optimizer: only `jaxmxopt`, for the classes
of the state.
"""

import argparse
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from sklearn.datasets import load_digits

import jaxmxopt as mxopt
from jaxmxopt.lr_scheduler import CosineScheduler

BATCH = 128


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


def exported(opt: mxopt.OptimizerDef, params: Any, state: mxopt.State) -> bytes:
    """Return a training step, as bytes."""

    def train_step(params: Any, state: Any, images: jax.Array, labels: jax.Array) -> Any:
        def loss_of(params: Any) -> jax.Array:
            chances = jax.nn.log_softmax(predict(params, images))
            return -jnp.mean(jnp.take_along_axis(chances, labels[:, None], axis=1))

        loss, grads = jax.value_and_grad(loss_of)(params)
        return *opt.step(params, grads, state), loss

    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (params, state)
    )
    (size,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((size, 64), jnp.float32)
    labels = jax.ShapeDtypeStruct((size,), jnp.int32)
    kept = export.export(jax.jit(train_step), platforms=("cpu", "cuda"))(*shapes, images, labels)
    return bytes(kept.serialize())


def main(arguments: list[str] | None = None) -> float:
    """Export, reads back and trains; returns the held-out accuracy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 steps only")
    steps = 100 if parser.parse_args(arguments).quick else 400

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = (images[order] / 16).astype(np.float32), labels[order].astype(np.int32)

    opt = mxopt.NAG(momentum=0.9, lr_scheduler=CosineScheduler(400, base_lr=0.1, warmup_steps=20))
    params = jax.jit(init_params)(jax.random.key(0))
    state = opt.init(params)

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "train_step"
        path.write_bytes(exported(opt, params, state))
        print(f"a training step in {path.stat().st_size:,} bytes")
        program = export.deserialize(bytearray(path.read_bytes()))

    train_step = jax.jit(program.call, donate_argnums=(0, 1))
    draw = np.random.default_rng(1)
    for step in range(steps):
        batch = draw.integers(0, 1440, BATCH)
        params, state, loss = train_step(params, state, images[batch], labels[batch])
        if step % 50 == 49:
            print(f"step {int(state.num_update)}: loss {float(loss):.4f}")

    predicted = jnp.argmax(predict(params, images[1440:]), axis=1)
    accuracy = float(jnp.mean(predicted == labels[1440:]))
    print(f"held out: {accuracy:.2%}")
    return accuracy


if __name__ == "__main__":
    main()
