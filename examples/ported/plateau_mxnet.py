"""Trains with a schedule that is told how the validation went, and returns to the best weights.

After the pattern of sockeye's training: a scheduler with an attribute `lr`, which is reduced on a
plateau, and which the program lowers itself when it goes back. `plateau.py` is this program on
jaxmxopt.
"""

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from tasks import first_weights, normal, put, run

BATCH, CHECKPOINT = 16, 5
SHAPES = {"0.weight": (8, 4), "0.bias": (8,), "1.weight": (1, 8), "1.bias": (1,)}


class PlateauReduce:
    """Keeps a rate, and lowers it after some checkpoints without improvement."""

    def __init__(self, base_lr, factor, patience, warmup):
        self.base_lr, self.factor, self.patience, self.warmup = base_lr, factor, patience, warmup
        self.lr, self.worse = None, 0

    def new_evaluation_result(self, has_improved):
        """Return True if the rate has been lowered."""
        self.worse = 0 if has_improved else self.worse + 1
        if self.worse < self.patience:
            return False
        self.lr, self.worse = self.lr * self.factor, 0
        return True

    def __call__(self, num_update):
        """Return the rate of an update."""
        if self.lr is None:
            self.lr = self.base_lr
        return self.lr * min(1.0, num_update / self.warmup)


def main(steps=100):
    """Trains; returns the losses."""
    rng = np.random.default_rng(8)
    x = normal(rng, 96, 4)
    y = np.sin(x.sum(axis=1, keepdims=True)) + 0.3 * normal(rng, 96, 1)
    held_x, held_y = mx.nd.array(x[64:]), mx.nd.array(y[64:])
    net = gluon.nn.Sequential()
    net.add(gluon.nn.Dense(8, activation="tanh", in_units=4), gluon.nn.Dense(1, in_units=8))
    put(net, first_weights(SHAPES), mx.nd.array)
    params = net.collect_params()
    schedule = PlateauReduce(base_lr=0.1, factor=0.5, patience=2, warmup=5)
    trainer = gluon.Trainer(params, "adam", {"lr_scheduler": schedule}, kvstore=None)
    schedule.lr = 0.1
    loss_of = gluon.loss.L2Loss()
    losses, best, best_weights = [], float("inf"), None
    for step in range(steps):
        rows = rng.integers(64, size=BATCH)
        with autograd.record():
            loss = loss_of(net(mx.nd.array(x[rows])), mx.nd.array(y[rows]))
        loss.backward()
        trainer.step(BATCH)
        losses.append(loss.mean().asscalar())
        if step % CHECKPOINT < CHECKPOINT - 1:
            continue
        held = loss_of(net(held_x), held_y).mean().asscalar()
        if held < best:
            best, best_weights = held, {name: p.data().copy() for name, p in params.items()}
        if trainer.optimizer.lr_scheduler.new_evaluation_result(held <= best):
            for name, parameter in params.items():
                parameter.set_data(best_weights[name])
            trainer.optimizer.lr_scheduler.lr *= 0.9
    return losses


if __name__ == "__main__":
    run(main)
