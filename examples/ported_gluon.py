"""Trains on handwritten digits with a Trainer, as with MXNet's gluon.

`ported_gluon_mxnet.py` is what it was on MXNet. The network is a function of a tree of weights,
which the trainer owns, and the gradients are given to `step`.
"""

import argparse
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from jaxmxopt import Trainer

BATCH = 64


@jax.jit
@jax.value_and_grad
def loss_and_grads(params, images, labels):
    """Return the loss summed over a batch, and its gradients."""
    first, second = params["dense0"], params["dense1"]
    hidden = jax.nn.relu(images @ first["weight"].T + first["bias"])
    scores = jax.nn.log_softmax(hidden @ second["weight"].T + second["bias"])
    return -jnp.take_along_axis(scores, labels[:, None], axis=1).sum()


def dense(rng, units, inputs):
    """Return the first weights of a layer."""
    weight = jnp.asarray(rng.standard_normal((units, inputs)) / 8, jnp.float32)
    return {"weight": weight, "bias": jnp.zeros(units)}


def main(steps=400):
    """Trains, prints the loss, and saves the states."""
    digits = load_digits()
    images = jnp.asarray(digits.images.reshape(-1, 64) / 16, jnp.float32)
    labels = jnp.asarray(digits.target)
    rng = np.random.default_rng(0)
    params = {"dense0": dense(rng, 32, 64), "dense1": dense(rng, 10, 32)}
    trainer = Trainer(params, "adam", {"learning_rate": 0.01, "wd": 1e-4})

    for step in range(steps):
        rows = rng.integers(len(labels), size=BATCH)
        loss, grads = loss_and_grads(trainer.params, images[rows], labels[rows])
        if step == steps // 2:
            trainer.set_learning_rate(0.003)
        trainer.step(grads, BATCH)
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss / BATCH:.3f}")
    with tempfile.TemporaryDirectory() as folder:
        trainer.save_states(pathlib.Path(folder) / "digits.states")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    main(parser.parse_args().steps)
