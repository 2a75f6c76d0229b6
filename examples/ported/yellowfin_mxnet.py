"""Trains with YellowFin (Zhang and Mitliagkas, 2017), whose weights share their statistics.

The optimizer measures curvature, noise and distance over all weights of a step, and from them it
sets one learning rate and one momentum. `yellowfin.py` is this program on jaxmxopt.
"""

import math

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from tasks import first_weights, normal, put, run

BATCH, WEIGHTS = 16, 4
SHAPES = {"0.weight": (8, 4), "0.bias": (8,), "1.weight": (1, 8), "1.bias": (1,)}


@mx.optimizer.register
class YellowFin(mx.optimizer.Optimizer):
    """Momentum whose two numbers are tuned after the last weight of every step."""

    def __init__(self, weights, beta=0.95, window=10, **kwargs):
        super().__init__(**kwargs)
        self.weights, self.beta, self.window = weights, beta, window
        self.rate, self.momentum, self.steps = self.lr, 0.0, 0
        self.curvatures, self.averages = [], {}
        self.square, self.mean_square = 0.0, 0.0

    def create_state(self, index, weight):
        """Return a momentum and an average of gradients."""
        return mx.nd.zeros(weight.shape), mx.nd.zeros(weight.shape)

    def update(self, index, weight, grad, state):
        """Update one weight."""
        self._update_count(index)
        grad = grad * self.rescale_grad
        mom, average = state
        average[:] = self.beta * average + (1 - self.beta) * grad
        self.square += float((grad**2).sum().asscalar())
        self.mean_square += float((average**2).sum().asscalar())
        mom[:] = self.momentum * mom - self.rate * grad
        weight[:] = weight + mom
        if index == self.weights - 1:
            self.tune()

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


def main(steps=100):
    """Trains; returns the losses."""
    rng = np.random.default_rng(9)
    x = normal(rng, 64, 4)
    y = np.sin(x.sum(axis=1, keepdims=True))
    net = gluon.nn.Sequential()
    net.add(gluon.nn.Dense(8, activation="tanh", in_units=4), gluon.nn.Dense(1, in_units=8))
    put(net, first_weights(SHAPES), mx.nd.array)
    optimizer = mx.optimizer.create("yellowfin", weights=WEIGHTS, learning_rate=0.05)
    trainer = gluon.Trainer(net.collect_params(), optimizer)
    loss_of = gluon.loss.L2Loss()
    losses = []
    for _ in range(steps):
        rows = rng.integers(len(x), size=BATCH)
        with autograd.record():
            loss = loss_of(net(mx.nd.array(x[rows])), mx.nd.array(y[rows]))
        loss.backward()
        trainer.step(BATCH)
        losses.append(loss.mean().asscalar())
    return losses


if __name__ == "__main__":
    run(main)
