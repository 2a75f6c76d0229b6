"""Trains with a sequence of schedules that remember, and goes on from a file in the middle.

After the pattern of gluon-cv's `LRScheduler` and `LRSequential` and of its `--resume`.
`schedules.py` is this program on jaxmxopt.
"""

import os
import tempfile
from math import cos, pi

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon, lr_scheduler
from tasks import first_weights, normal, put, run

BATCH, RESUMED = 16, 12
SHAPES = {"0.weight": (8, 4), "0.bias": (8,), "1.weight": (1, 8), "1.bias": (1,)}


class Piece(lr_scheduler.LRScheduler):
    """Goes from one rate to another, along a line or a cosine, from `offset` on."""

    def __init__(self, mode, base_lr, target_lr, niters, offset=0):
        super().__init__()
        self.mode, self.base_lr, self.target_lr = mode, base_lr, target_lr
        self.niters, self.offset = niters, offset
        self.learning_rate = base_lr

    def __call__(self, num_update):
        """Update `learning_rate` and returns it."""
        self.update(num_update)
        return self.learning_rate

    def update(self, num_update):
        """Move on."""
        share = min(max(num_update - self.offset, 0), self.niters - 1) / (self.niters - 1)
        factor = 1 - share if self.mode == "linear" else (1 + cos(pi * share)) / 2
        self.learning_rate = self.target_lr + (self.base_lr - self.target_lr) * factor


class Sequence(lr_scheduler.LRScheduler):
    """Asks one schedule after the other."""

    def __init__(self, pieces):
        super().__init__()
        self.pieces, self.count, self.learning_rate = [], 0, 0.0
        for piece in pieces:
            self.add(piece)

    def add(self, piece):
        """Append a schedule that begins where the last one ends."""
        piece.offset, self.count = self.count, self.count + piece.niters
        self.pieces.append(piece)

    def __call__(self, num_update):
        """Update `learning_rate` and returns it."""
        self.update(num_update)
        return self.learning_rate

    def update(self, num_update):
        """Move on."""
        current = self.pieces[-1]
        for piece in reversed(self.pieces):
            if piece.offset > num_update:
                current = self.pieces[self.pieces.index(piece) - 1]
        current.update(num_update)
        self.learning_rate = current.learning_rate


def schedule():
    """Return a warmup and a decay."""
    return Sequence([Piece("linear", 0.0, 0.2, 10), Piece("cosine", 0.2, 0.001, 90)])


def network(weights):
    """Return two layers."""
    net = gluon.nn.Sequential()
    net.add(gluon.nn.Dense(8, activation="tanh", in_units=4), gluon.nn.Dense(1, in_units=8))
    put(net, weights, mx.nd.array)
    return net


def main(steps=100):
    """Trains, after some steps from files; returns the losses."""
    rng = np.random.default_rng(6)
    x = normal(rng, 64, 4)
    y = np.sin(x.sum(axis=1, keepdims=True))
    settings = {"momentum": 0.9, "wd": 1e-4}
    net = network(first_weights(SHAPES))
    net.collect_params(".*bias").setattr("wd_mult", 0.0)
    trainer = gluon.Trainer(net.collect_params(), "nag", {**settings, "lr_scheduler": schedule()})
    loss_of = gluon.loss.L2Loss()
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        for step in range(steps):
            if step == RESUMED:
                path = os.path.join(folder, "resumed")
                net.save_parameters(path + ".params")
                trainer.save_states(path + ".states")
                net = network(first_weights(SHAPES, seed=1))
                net.load_parameters(path + ".params")
                net.collect_params(".*bias").setattr("wd_mult", 0.0)
                trainer = gluon.Trainer(
                    net.collect_params(), "nag", {**settings, "lr_scheduler": schedule()}
                )
                trainer.load_states(path + ".states")
            rows = rng.integers(len(x), size=BATCH)
            with autograd.record():
                loss = loss_of(net(mx.nd.array(x[rows])), mx.nd.array(y[rows]))
            loss.backward()
            trainer.step(BATCH)
            losses.append(loss.mean().asscalar())
    return losses


if __name__ == "__main__":
    run(main)
