"""A custom optimizer written for MXNet: momentum of signs, with masters for float16.

`ported_custom_mxnet.py` is what it was on MXNet. Only the in-place writes in `update` have become
returned values.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from jaxmxopt import optimizer


@optimizer.register
class Lion(optimizer.Optimizer):
    """Steps by the sign of a momentum (Chen et al., 2023)."""

    def __init__(self, beta1=0.9, beta2=0.99, **kwargs):
        super().__init__(**kwargs)
        self.beta1 = beta1
        self.beta2 = beta2

    def create_state(self, index, weight):
        """Return a momentum of zeros."""
        return jnp.zeros_like(weight)

    def update(self, index, weight, grad, state):
        """Return the new weight and momentum."""
        self._update_count(index)
        lr, wd = self._get_lr(index), self._get_wd(index)
        grad = grad * self.rescale_grad
        step = jnp.sign(self.beta1 * state + (1 - self.beta1) * grad)
        return weight - lr * (step + wd * weight), self.beta2 * state + (1 - self.beta2) * grad


def main(steps=400):
    """Trains one layer on handwritten digits and prints the error."""
    digits = load_digits()
    images = jnp.asarray(digits.images.reshape(-1, 64) / 16, jnp.float32)
    targets = jax.nn.one_hot(digits.target, 10)
    rng = np.random.default_rng(0)
    weight = jnp.zeros((64, 10), "float16")
    opt = optimizer.create(
        "lion", learning_rate=0.002, wd=0.01, rescale_grad=1 / 64, multi_precision=True
    )
    updater = optimizer.get_updater(opt)
    for step in range(steps):
        rows = rng.integers(len(images), size=64)
        x, y = images[rows], targets[rows]
        wrong = jax.nn.softmax(x @ weight.astype("float32")) - y
        weight = updater(0, (x.T @ wrong).astype("float16"), weight)
        if step % 100 == 99:
            print(f"step {step + 1}: error {float(abs(wrong).mean()):.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    main(parser.parse_args().steps)
