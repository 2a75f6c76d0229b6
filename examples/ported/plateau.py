"""Trains with a schedule that is told how the validation went, and returns to the best weights.

`plateau_mxnet.py` is what it was on MXNet. The scheduler has not changed.
"""

import jax
import jax.numpy as jnp
import numpy as np
from tasks import first_weights, normal, run

from jaxmxopt import Trainer

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


def loss_of(params, x, y):
    """Return half the square of each example."""
    hidden = jnp.tanh(x @ params["0.weight"].T + params["0.bias"])
    return ((hidden @ params["1.weight"].T + params["1.bias"] - y) ** 2).mean(axis=1) / 2


loss_and_grads = jax.jit(jax.value_and_grad(lambda *given: loss_of(*given).sum()))


def main(steps=100):
    """Trains; returns the losses."""
    rng = np.random.default_rng(8)
    x = normal(rng, 96, 4)
    y = np.sin(x.sum(axis=1, keepdims=True)) + np.float32(0.3) * normal(rng, 96, 1)
    held_x, held_y = x[64:], y[64:]
    schedule = PlateauReduce(base_lr=0.1, factor=0.5, patience=2, warmup=5)
    trainer = Trainer(first_weights(SHAPES), "adam", {"lr_scheduler": schedule}, kvstore=None)
    schedule.lr = 0.1
    losses, best, best_weights = [], float("inf"), None
    for step in range(steps):
        rows = rng.integers(64, size=BATCH)
        loss, grads = loss_and_grads(trainer.params, x[rows], y[rows])
        trainer.step(grads, BATCH)
        losses.append(float(loss) / BATCH)
        if step % CHECKPOINT < CHECKPOINT - 1:
            continue
        held = float(loss_of(trainer.params, held_x, held_y).mean())
        if held < best:
            best, best_weights = held, jax.tree.map(jnp.copy, trainer.params)
        if trainer.optimizer.lr_scheduler.new_evaluation_result(held <= best):
            trainer.params = best_weights
            trainer.optimizer.lr_scheduler.lr *= 0.9
    return losses


if __name__ == "__main__":
    run(main)
