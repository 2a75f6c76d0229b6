"""Trains with YellowFin (Zhang and Mitliagkas, 2017), whose weights share their statistics.

`yellowfin_mxnet.py` is what it was on MXNet. A Trainer calls `update` with the path of a weight, an
updater with the number that it is given; the last path stands where the last number stood.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from tasks import first_weights, normal, run

from jaxmxopt import Trainer, optimizer

BATCH, LAST = 16, "1.weight"
SHAPES = {"0.weight": (8, 4), "0.bias": (8,), "1.weight": (1, 8), "1.bias": (1,)}


@optimizer.register
class YellowFin(optimizer.Optimizer):
    """Momentum whose two numbers are tuned after the last weight of every step."""

    def __init__(self, last, beta=0.95, window=10, **kwargs):
        super().__init__(**kwargs)
        self.last, self.beta, self.window = last, beta, window
        self.rate, self.momentum, self.steps = self.lr, 0.0, 0
        self.curvatures, self.averages = [], {}
        self.square, self.mean_square = 0.0, 0.0

    def create_state(self, index, weight):
        """Return a momentum and an average of gradients."""
        return jnp.zeros(weight.shape), jnp.zeros(weight.shape)

    def update(self, index, weight, grad, state):
        """Return a weight and its state, updated."""
        self._update_count(index)
        grad = grad * self.rescale_grad
        mom, average = state
        average = self.beta * average + (1 - self.beta) * grad
        self.square += float((grad**2).sum())
        self.mean_square += float((average**2).sum())
        mom = self.momentum * mom - self.rate * grad
        if index == self.last:
            self.tune()
        return weight + mom, (mom, average)

    def averaged(self, name, value):
        """Return an average without the bias of its first zero."""
        self.averages[name] = self.beta * self.averages.get(name, 0.0) + (1 - self.beta) * value
        return self.averages[name] / (1 - self.beta**self.steps)

    def tune(self):
        """Set the learning rate and the momentum of the next step."""
        self.steps += 1
        self.curvatures = [*self.curvatures, self.square][-self.window :]
        low = self.averaged("low", min(self.curvatures))
        high = self.averaged("high", max(self.curvatures))
        mean_square = self.mean_square / (1 - self.beta**self.steps) ** 2
        variance = max(self.averaged("square", self.square) - mean_square, 1e-6)
        norm = self.averaged("norm", math.sqrt(self.square))
        distance = self.averaged("distance", norm / self.averaged("curvature", self.square))
        # The root of a cubic, as its authors solve it, and the bound that the curvatures set.
        p = (distance * low) ** 2 / (2 * variance)
        w3 = -p / 2 - math.sqrt(p**2 / 4 + p**3 / 27)
        w = -((-w3) ** (1 / 3))
        root = w - p / (3 * w) + 1
        bound = ((math.sqrt(high / low) - 1) / (math.sqrt(high / low) + 1)) ** 2
        momentum = max(root**2, bound)
        rate = (1 - math.sqrt(momentum)) ** 2 / low
        self.momentum = self.beta * self.momentum + (1 - self.beta) * min(momentum, 0.99)
        self.rate = self.beta * self.rate + (1 - self.beta) * min(rate, 1.0)
        self.square = self.mean_square = 0.0


@jax.jit
@jax.value_and_grad
def loss_and_grads(params, x, y):
    """Return the sum of half the squares, and its gradients."""
    hidden = jnp.tanh(x @ params["0.weight"].T + params["0.bias"])
    return ((hidden @ params["1.weight"].T + params["1.bias"] - y) ** 2).sum() / 2


def main(steps=100):
    """Trains; returns the losses."""
    rng = np.random.default_rng(9)
    x = normal(rng, 64, 4)
    y = np.sin(x.sum(axis=1, keepdims=True))
    yellowfin = optimizer.create("yellowfin", last=LAST, learning_rate=0.05)
    trainer = Trainer(first_weights(SHAPES), yellowfin)
    losses = []
    for _ in range(steps):
        rows = rng.integers(len(x), size=BATCH)
        loss, grads = loss_and_grads(trainer.params, x[rows], y[rows])
        trainer.step(grads, BATCH)
        losses.append(float(loss) / BATCH)
    return losses


if __name__ == "__main__":
    run(main)
