"""Trains with a subclass of Trainer that adds up gradients over workers itself, as horovod's does.

Two workers run in turn here: the gradients of the other one are computed beforehand.
`horovod.py` is this program on jaxmxopt.
"""

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from tasks import first_weights, normal, put, run

BATCH, WORKERS = 8, 2
SHAPES = {"0.weight": (8, 4), "0.bias": (8,), "1.weight": (1, 8), "1.bias": (1,)}


class World:
    """Return the tensor that the other worker has sent, by name."""

    def __init__(self):
        self.sent = {}

    def allreduce_(self, grad, name):
        """Add what the other has sent to an array in place."""
        grad[:] = grad + self.sent[name]


class DistributedTrainer(gluon.Trainer):
    """Divides by the number of workers, and adds up over them."""

    def __init__(self, world, params, optimizer, optimizer_params=None):
        super().__init__(params, optimizer, optimizer_params=optimizer_params, kvstore=None)
        self._scale /= WORKERS
        self.world = world

    def _allreduce_grads(self):
        for i, parameter in enumerate(self._params):
            if parameter.grad_req != "null":
                self.world.allreduce_(parameter.list_grad()[0], name=str(i))


def main(steps=100):
    """Trains; returns the losses."""
    rng = np.random.default_rng(11)
    x = normal(rng, 64, 4)
    y = np.sin(x.sum(axis=1, keepdims=True))
    net = gluon.nn.Sequential()
    net.add(gluon.nn.Dense(8, activation="tanh", in_units=4), gluon.nn.Dense(1, in_units=8))
    put(net, first_weights(SHAPES), mx.nd.array)
    world = World()
    trainer = DistributedTrainer(
        world, net.collect_params(), "rmsprop", {"learning_rate": 0.01, "centered": True}
    )
    loss_of = gluon.loss.L2Loss()
    losses = []
    for _ in range(steps):
        for worker in range(WORKERS):
            rows = rng.integers(len(x), size=BATCH)
            with autograd.record():
                loss = loss_of(net(mx.nd.array(x[rows])), mx.nd.array(y[rows]))
            loss.backward()
            losses += [loss.mean().asscalar()] * worker
            if worker == 0:
                grads = (parameter.grad().copy() for parameter in trainer._params)
                world.sent = {str(i): grad for i, grad in enumerate(grads)}
        trainer.step(BATCH)
    return losses


if __name__ == "__main__":
    run(main)
