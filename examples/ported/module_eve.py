"""Trains with Eve (Koushik and Hayashi, 2016), whose states are objects.

`module_eve_mxnet.py` is what it was on MXNet. The Module has become a function and an updater.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from tasks import first_weights, normal, run

from jaxmxopt import optimizer

BATCH = 16
SHAPES = {"fc1_weight": (8, 4), "fc1_bias": (8,), "fc2_weight": (1, 8), "fc2_bias": (1,)}
NAMES = dict(enumerate(SHAPES))


class EveState:
    """Moments of a gradient, and how the loss has moved."""

    def __init__(self, weight):
        self.mean = jnp.zeros(weight.shape)
        self.variance = jnp.zeros(weight.shape)
        self.objective, self.change = None, 1.0


@optimizer.register
class Eve(optimizer.Optimizer):
    """Adam whose rate falls where the loss moves much."""

    def __init__(self, beta1=0.9, beta2=0.999, beta3=0.9, low=0.1, high=10.0, **kwargs):
        super().__init__(**kwargs)
        self.beta1, self.beta2, self.beta3 = beta1, beta2, beta3
        self.low, self.high = low, high
        self.loss = None

    def pre_update_batch(self, loss):
        """Take the loss of the batch that the next updates are of."""
        self.loss = loss

    def create_state(self, index, weight):
        """Return an object."""
        return EveState(weight)

    def moved(self, state):
        """Put the loss into a state."""
        if state.objective is None:
            state.objective = self.loss
            return
        least, most = 1 / (self.high + 1), 1 / (self.low + 1)
        if self.loss >= state.objective:
            least, most = self.low + 1, self.high + 1
        objective = state.objective * min(max(least, self.loss / state.objective), most)
        change = abs(objective - state.objective) / min(objective, state.objective)
        state.change = self.beta3 * state.change + (1 - self.beta3) * change
        state.objective = objective

    def update(self, index, weight, grad, state):
        """Return a weight and its state, updated."""
        self._update_count(index)
        t = self._index_update_count[index]
        grad = grad * self.rescale_grad + self._get_wd(index) * weight
        self.moved(state)
        state.mean = self.beta1 * state.mean + (1 - self.beta1) * grad
        state.variance = self.beta2 * state.variance + (1 - self.beta2) * grad**2
        rate = self._get_lr(index) * math.sqrt(1 - self.beta2**t) / (1 - self.beta1**t)
        root = jnp.sqrt(state.variance) + 1e-8
        return weight - rate / state.change * state.mean / root, state


@jax.jit
@jax.value_and_grad
def loss_and_grads(weights, x, y):
    """Return the sum of half the squares, and its gradients."""
    hidden = jnp.tanh(x @ weights["fc1_weight"].T + weights["fc1_bias"])
    return ((hidden @ weights["fc2_weight"].T + weights["fc2_bias"] - y) ** 2).sum() / 2


def main(steps=100):
    """Trains; returns the losses."""
    rng = np.random.default_rng(12)
    x = normal(rng, 64, 4)
    y = np.sin(x.sum(axis=1, keepdims=True))
    weights = {name: jnp.asarray(weight) for name, weight in first_weights(SHAPES).items()}
    eve = optimizer.create(
        "eve", learning_rate=0.05, wd=1e-3, rescale_grad=1 / BATCH, param_idx2name=NAMES
    )
    updater = optimizer.get_updater(eve)
    losses = []
    for _ in range(steps):
        rows = rng.integers(len(x), size=BATCH)
        loss, grads = loss_and_grads(weights, x[rows], y[rows])
        eve.pre_update_batch(float(loss) / BATCH)
        for index, name in NAMES.items():
            weights[name] = updater(index, grads[name], weights[name])
        losses.append(float(loss) / BATCH)
    return losses


if __name__ == "__main__":
    run(main)
