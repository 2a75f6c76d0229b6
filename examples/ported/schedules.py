"""Trains with a sequence of schedules that remember, and goes on from a file in the middle.

`schedules_mxnet.py` is what it was on MXNet. The schedules have not changed.
"""

import os
import tempfile
from math import cos, pi

import jax
import jax.numpy as jnp
import numpy as np
from tasks import first_weights, normal, run

from jaxmxopt import Trainer, lr_scheduler, mxnet_files

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


@jax.jit
@jax.value_and_grad
def loss_and_grads(params, x, y):
    """Return the sum of half the squares, and its gradients."""
    hidden = jnp.tanh(x @ params["0.weight"].T + params["0.bias"])
    return ((hidden @ params["1.weight"].T + params["1.bias"] - y) ** 2).sum() / 2


def main(steps=100):
    """Trains, after some steps from files; returns the losses."""
    rng = np.random.default_rng(6)
    x = normal(rng, 64, 4)
    y = np.sin(x.sum(axis=1, keepdims=True))
    settings = {"momentum": 0.9, "wd": 1e-4}
    trainer = Trainer(first_weights(SHAPES), "nag", {**settings, "lr_scheduler": schedule()})
    trainer.optimizer.set_wd_mult({"*.bias": 0.0})
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        for step in range(steps):
            if step == RESUMED:
                path = os.path.join(folder, "resumed")
                mxnet_files.save_params(path + ".params", trainer.params)
                trainer.save_states(path + ".states")
                params = mxnet_files.load_params(path + ".params")
                trainer = Trainer(params, "nag", {**settings, "lr_scheduler": schedule()})
                trainer.load_states(path + ".states")
            rows = rng.integers(len(x), size=BATCH)
            loss, grads = loss_and_grads(trainer.params, x[rows], y[rows])
            trainer.step(grads, BATCH)
            losses.append(float(loss) / BATCH)
    return losses


if __name__ == "__main__":
    run(main)
