"""Trains a flax module on handwritten digits with `nnx.Optimizer`.

    python examples/flax_nnx.py          # a few seconds; --quick for a taste

Different algorithms for different weights, and an average of the weights to predict with.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import jaxmxopt as mxopt
from jaxmxopt.interop import as_optax

BATCH = 128


class Network(nnx.Module):
    """Two dense layers with batch normalization between them."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(64, 128, rngs=rngs)
        self.norm = nnx.BatchNorm(128, rngs=rngs)
        self.logits = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the logits of a batch of images."""
        return self.logits(nnx.relu(self.norm(self.hidden(images))))


@nnx.jit
def train_step(
    network: Network, optimizer: nnx.Optimizer, images: jax.Array, labels: jax.Array
) -> jax.Array:
    """One update in place; returns the loss."""

    def loss_of(network: Network) -> jax.Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(network(images), labels)
        return losses.mean()

    loss, grads = nnx.value_and_grad(loss_of)(network)
    optimizer.update(network, grads)
    return loss


def accuracy(network: Network, images: jax.Array, labels: jax.Array) -> float:
    """Return the share of images whose digit is the most likely one."""
    network.eval()
    share = float(jnp.mean(jnp.argmax(network(images), axis=1) == labels))
    network.train()
    return share


def main(arguments: list[str] | None = None) -> float:
    """Trains; returns the held-out accuracy of the averaged weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 steps only")
    steps = 100 if parser.parse_args(arguments).quick else 600

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = (images[order] / 16).astype(np.float32), labels[order]
    held_out = slice(1440, None)

    network = Network(rngs=nnx.Rngs(0))
    kernels = mxopt.AdamW(learning_rate=3e-3, wd=0.01)
    rest = mxopt.Adam(learning_rate=3e-3)
    opt = mxopt.EMA(mxopt.Groups({"*/kernel": kernels, "*": rest}), decay=0.98)
    optimizer = nnx.Optimizer(network, as_optax(opt), wrt=nnx.Param)

    draw = np.random.default_rng(1)
    for step in range(steps):
        batch = draw.integers(0, 1440, BATCH)
        loss = train_step(network, optimizer, images[batch], labels[batch])
        if step % 50 == 49:
            print(f"step {step + 1}: loss {loss:.4f}")
    print(
        f"held out, the last weights: {accuracy(network, images[held_out], labels[held_out]):.2%}"
    )

    # Arrays without their variables, as the optimizer saw them.
    weights = nnx.as_pure(nnx.state(network, nnx.Param))
    nnx.update(network, mxopt.averaged(weights, nnx.as_pure(optimizer.opt_state)))
    averaged = accuracy(network, images[held_out], labels[held_out])
    print(f"held out, averaged weights: {averaged:.2%}")
    return averaged


if __name__ == "__main__":
    main()
