"""Trains a linear model with one optimizer after the other, and with schedules set by hand.

After the pattern of the chapter on optimization of Dive into Deep Learning. `optimizers.py` is this
program on jaxmxopt.
"""

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon, lr_scheduler
from tasks import first_weights, normal, put, run

BATCH = 10
SHAPES = {"0.weight": (1, 5), "0.bias": (1,)}


class SquareRootScheduler:
    """Decays with the root of the number of updates."""

    def __init__(self, lr=0.1):
        self.lr = lr

    def __call__(self, num_update):
        """Return the rate of an update."""
        return self.lr * pow(num_update + 1.0, -0.5)


OPTIMIZERS = [
    ("sgd", {"learning_rate": 0.05}),
    ("sgd", {"learning_rate": 0.005, "momentum": 0.9}),
    ("adagrad", {"learning_rate": 0.1}),
    ("rmsprop", {"learning_rate": 0.01, "gamma1": 0.9}),
    ("adadelta", {"rho": 0.9}),
    ("adam", {"learning_rate": 0.01}),
    ("sgd", {"lr_scheduler": SquareRootScheduler(0.2)}),
    (
        "sgd",
        {"lr_scheduler": lr_scheduler.MultiFactorScheduler([15, 30], factor=0.5, base_lr=0.5)},
    ),
]
BY_HAND = lr_scheduler.CosineScheduler(20, warmup_steps=5, base_lr=0.3, final_lr=0.01)


def train(trainer_name, hyperparams, schedule=None, steps=100):
    """Trains with one optimizer; returns the losses."""
    rng = np.random.default_rng(13)
    x = normal(rng, 200, 5)
    y = x @ np.arange(1, 6, dtype=np.float32) + np.float32(0.1) * normal(rng, 200)
    net = gluon.nn.Sequential()
    net.add(gluon.nn.Dense(1, in_units=5))
    put(net, first_weights(SHAPES), mx.nd.array)
    trainer = gluon.Trainer(net.collect_params(), trainer_name, hyperparams)
    loss_of = gluon.loss.L2Loss()
    losses = []
    for step in range(steps):
        if schedule and step % 5 == 0:
            trainer.set_learning_rate(schedule(step // 5))
        rows = step * BATCH % len(x)
        features, labels = x[rows : rows + BATCH], y[rows : rows + BATCH]
        with autograd.record():
            loss = loss_of(net(mx.nd.array(features)), mx.nd.array(labels))
        loss.backward()
        trainer.step(BATCH)
        losses.append(loss.mean().asscalar())
    return losses


def main(steps=100):
    """Trains with each; returns the losses of a step, added up."""
    runs = [train(*each, steps=steps) for each in OPTIMIZERS]
    runs.append(train("sgd", {"learning_rate": 0.1}, BY_HAND, steps))
    return [float(sum(losses)) for losses in zip(*runs, strict=True)]


if __name__ == "__main__":
    run(main)
