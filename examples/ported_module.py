"""Trains on handwritten digits: a loop in the style of MXNet's Module, with an Updater.

`ported_module_mxnet.py` is what it was on MXNet. Gradients come from JAX, and the updater's
answer is taken back; the optimizer is set up as ever.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from jaxmxopt import lr_scheduler, optimizer

BATCH, NAMES = 64, {0: "fc1_weight", 1: "fc1_bias", 2: "fc2_weight", 3: "fc2_bias"}


@jax.jit
@jax.value_and_grad
def loss_and_grads(weights, images, labels):
    """Return the loss summed over a batch, and its gradients."""
    hidden = jax.nn.relu(images @ weights[0].T + weights[1])
    scores = jax.nn.log_softmax(hidden @ weights[2].T + weights[3])
    return -jnp.take_along_axis(scores, labels[:, None], axis=1).sum()


def main(steps=400):
    """Trains and prints the loss."""
    digits = load_digits()
    images = jnp.asarray(digits.images.reshape(-1, 64) / 16, jnp.float32)
    labels = jnp.asarray(digits.target)
    rng = np.random.default_rng(0)
    shapes = [(32, 64), (32,), (10, 32), (10,)]
    weights = [jnp.asarray(rng.standard_normal(shape) / 8, jnp.float32) for shape in shapes]

    schedule = lr_scheduler.FactorScheduler(step=100, factor=0.7, base_lr=0.1)
    opt = optimizer.create(
        "sgd",
        momentum=0.9,
        wd=1e-3,
        lr_scheduler=schedule,
        rescale_grad=1 / BATCH,
        param_idx2name=NAMES,
    )
    updater = optimizer.get_updater(opt)

    for step in range(steps):
        rows = rng.integers(len(labels), size=BATCH)
        loss, grads = loss_and_grads(weights, images[rows], labels[rows])
        for index, weight in enumerate(weights):
            weights[index] = updater(index, grads[index], weight)
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss / BATCH:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    main(parser.parse_args().steps)
