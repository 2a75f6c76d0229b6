"""Trains with an optimizer that hands everything on to another one, as horovod's does.

It is a subclass of Optimizer that never calls `super().__init__`: what it has not itself it takes
from the optimizer inside. `delegating_mxnet.py` is what it was on MXNet: `return` is new.
"""

import jax
import jax.numpy as jnp
import numpy as np
from tasks import first_weights, normal, run

from jaxmxopt import optimizer

BATCH, WORKERS, LOWERED = 16, 2, 12
SHAPES = [(8, 4), (8,), (1, 8), (1,)]


class DistributedOptimizer(optimizer.Optimizer):
    """Averages gradients over workers before another optimizer sees them."""

    def __init__(self, inner, workers):
        self._optimizer, self.workers = inner, workers
        self._optimizer.rescale_grad /= workers

    def __getattr__(self, name):
        return getattr(self._optimizer, name)

    def create_state_multi_precision(self, index, weight):
        """Return what the other makes."""
        return self._optimizer.create_state_multi_precision(index, weight)

    def allreduce(self, grad):
        """Return the sum over the workers; all are alike here."""
        return grad * self.workers

    def update(self, index, weight, grad, state):
        """Return a weight and its state, updated."""
        return self._optimizer.update(index, weight, self.allreduce(grad), state)

    def update_multi_precision(self, index, weight, grad, state):
        """Return a weight and its state, updated."""
        return self._optimizer.update_multi_precision(index, weight, self.allreduce(grad), state)

    def set_learning_rate(self, lr):
        """Set that of the other."""
        self._optimizer.set_learning_rate(lr)

    def set_lr_mult(self, args_lr_mult):
        """Set those of the other."""
        self._optimizer.set_lr_mult(args_lr_mult)

    def set_wd_mult(self, args_wd_mult):
        """Set those of the other."""
        self._optimizer.set_wd_mult(args_wd_mult)


@jax.jit
@jax.value_and_grad
def loss_and_grads(weights, x, y):
    """Return the sum of half the squares, and its gradients."""
    hidden = jnp.tanh(x @ weights[0].T + weights[1])
    return ((hidden @ weights[2].T + weights[3] - y) ** 2).sum() / 2


def main(steps=100):
    """Trains; returns the losses."""
    rng = np.random.default_rng(10)
    x = normal(rng, 64, 4)
    y = np.sin(x.sum(axis=1, keepdims=True))
    first = first_weights(dict(enumerate(SHAPES)))
    weights = [jnp.asarray(first[index]) for index in range(4)]
    inner = optimizer.create("ftml", learning_rate=0.02, wd=1e-3, rescale_grad=1 / BATCH)
    delegating = DistributedOptimizer(inner, WORKERS)
    delegating.set_lr_mult({3: 2.0})
    updater = optimizer.get_updater(delegating)
    losses = []
    for step in range(steps):
        rows = rng.integers(len(x), size=BATCH)
        if step == LOWERED:
            delegating.set_learning_rate(delegating.lr / 2)
        loss, grads = loss_and_grads(weights, x[rows], y[rows])
        for index, weight in enumerate(weights):
            weights[index] = updater(index, grads[index], weight)
        losses.append(float(loss) / BATCH)
    return losses


if __name__ == "__main__":
    run(main)
