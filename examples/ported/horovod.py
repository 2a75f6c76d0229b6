"""Trains with a subclass of Trainer that adds up gradients over workers itself, as horovod's does.

Two workers run in turn here: the gradients of the other one are computed beforehand.
`horovod_mxnet.py` is what it was on MXNet: `_allreduce_grads` gets the gradients and returns them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from tasks import first_weights, normal, run

from jaxmxopt import Trainer

BATCH, WORKERS = 8, 2
SHAPES = {"0.weight": (8, 4), "0.bias": (8,), "1.weight": (1, 8), "1.bias": (1,)}


class World:
    """Return the tensor that the other worker has sent, by name."""

    def __init__(self):
        self.sent = {}

    def allreduce(self, grad, name):
        """Return the sum of an array and what the other has sent."""
        return grad + self.sent[name]


class DistributedTrainer(Trainer):
    """Divides by the number of workers, and adds up over them."""

    def __init__(self, world, params, optimizer, optimizer_params=None):
        super().__init__(params, optimizer, optimizer_params=optimizer_params, kvstore=None)
        self._scale /= WORKERS
        self.world = world

    def _allreduce_grads(self, grads):
        leaves, tree = jax.tree.flatten(grads)
        added = [self.world.allreduce(grad, name=str(i)) for i, grad in enumerate(leaves)]
        return tree.unflatten(added)


@jax.jit
@jax.value_and_grad
def loss_and_grads(params, x, y):
    """Return the sum of half the squares, and its gradients."""
    hidden = jnp.tanh(x @ params["0.weight"].T + params["0.bias"])
    return ((hidden @ params["1.weight"].T + params["1.bias"] - y) ** 2).sum() / 2


def main(steps=100):
    """Trains; returns the losses."""
    rng = np.random.default_rng(11)
    x = normal(rng, 64, 4)
    y = np.sin(x.sum(axis=1, keepdims=True))
    world = World()
    trainer = DistributedTrainer(
        world, first_weights(SHAPES), "rmsprop", {"learning_rate": 0.01, "centered": True}
    )
    losses = []
    for _ in range(steps):
        for worker in range(WORKERS):
            rows = rng.integers(len(x), size=BATCH)
            loss, grads = loss_and_grads(trainer.params, x[rows], y[rows])
            losses += [float(loss) / BATCH] * worker
            if worker == 0:
                sent = jax.tree.leaves(grads)
                world.sent = {str(i): grad for i, grad in enumerate(sent)}
        trainer.step(grads, BATCH)
    return losses


if __name__ == "__main__":
    run(main)
