"""Trains float16 weights with a loss scaler around a Trainer, after gluon-nlp's FP16Trainer.

`loss_scaler_mxnet.py` is what it was on MXNet. `Trainer(loss_scaler=)` does all of it in one
argument: what is here is the port line by line.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from tasks import first_weights, normal, run

from jaxmxopt import Trainer

BATCH = 16
SHAPES = {"hidden.weight": (8, 6), "hidden.bias": (8,), "out.weight": (3, 8), "out.bias": (3,)}


def net(params, x):
    """Return scores: two layers with float16 weights that multiply in float32."""
    wide = {name: weight.astype("float32") for name, weight in params.items()}
    hidden = jnp.tanh(x @ wide["hidden.weight"].T + wide["hidden.bias"])
    return hidden @ wide["out.weight"].T + wide["out.bias"]


@jax.jit
@jax.value_and_grad
def loss_and_grads(params, x, labels, scale):
    """Return the scaled sum of the losses, and its gradients."""
    scores = jax.nn.log_softmax(net(params, x))
    return -jnp.take_along_axis(scores, labels[:, None], axis=1).sum() * scale


class LossScaler:
    """Halves the scale after an overflow, doubles it after some steps without."""

    def __init__(self, scale=2.0**19, window=25):
        self.loss_scale, self.window, self.unskipped = scale, window, 0

    def update(self, overflow):
        """Move on by one step."""
        self.unskipped = 0 if overflow else self.unskipped + 1
        if overflow:
            self.loss_scale /= 2
        elif self.unskipped == self.window:
            self.loss_scale, self.unskipped = self.loss_scale * 2, 0


class HalfTrainer:
    """Wraps a Trainer: scales the loss, clips, and skips steps that overflowed."""

    def __init__(self, trainer):
        self.trainer, self.scaler = trainer, LossScaler()

    def backward(self, *batch):
        """Return the loss, and gradients of the scaled one."""
        loss, grads = loss_and_grads(self.trainer.params, *batch, self.scaler.loss_scale)
        return loss / self.scaler.loss_scale, grads

    def step(self, grads, batch_size, max_norm):
        """Update, unless a gradient is not finite."""
        grads = self.trainer.allreduce_grads(grads)
        wide = [grad.astype("float32") for grad in jax.tree.leaves(grads)]
        norm = math.sqrt(sum(float((grad**2).sum()) for grad in wide))
        overflow = not math.isfinite(norm)
        if not overflow:
            ratio = max(1.0, norm / (max_norm * self.scaler.loss_scale))
            self.trainer.update(grads, batch_size * self.scaler.loss_scale * ratio)
        self.scaler.update(overflow)


def main(steps=100):
    """Trains; returns the losses."""
    rng = np.random.default_rng(2)
    x, teacher = normal(rng, 128, 6), normal(rng, 6, 3)
    labels = (x @ teacher).argmax(axis=1)
    params = {name: jnp.asarray(w, "float16") for name, w in first_weights(SHAPES).items()}
    trainer = Trainer(
        params,
        "adam",
        {"learning_rate": 0.005, "multi_precision": True},
        update_on_kvstore=False,
    )
    trainer = HalfTrainer(trainer)
    losses = []
    for _ in range(steps):
        rows = rng.integers(len(labels), size=BATCH)
        loss, grads = trainer.backward(x[rows], labels[rows])
        trainer.step(grads, BATCH, max_norm=8.0)
        losses.append(float(loss) / BATCH)
    return losses


if __name__ == "__main__":
    run(main)
