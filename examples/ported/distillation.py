"""Trains a small network on the softened scores of a large one that stays as it is.

`distillation_mxnet.py` is what it was on MXNet.
"""

import jax
import jax.numpy as jnp
import numpy as np
from tasks import first_weights, normal, run

from jaxmxopt import Trainer, lr_scheduler, optimizer

BATCH, HOT, HARD = 16, 3.0, 0.3


def first_params(width, seed):
    """Return the first weights of two layers."""
    shapes = {"0.weight": (width, 6), "0.bias": (width,), "1.weight": (4, width), "1.bias": (4,)}
    return first_weights(shapes, seed)


def network(params, x):
    """Return scores."""
    hidden = jax.nn.relu(x @ params["0.weight"].T + params["0.bias"])
    return hidden @ params["1.weight"].T + params["1.bias"]


@jax.jit
@jax.value_and_grad
def loss_and_grads(student, teacher, images, labels):
    """Return the loss summed over a batch, and its gradients."""
    target = jax.nn.softmax(network(teacher, images) / HOT)
    scores = network(student, images)
    hard = jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], axis=1)
    soft = (target * jax.nn.log_softmax(scores / HOT)).sum(axis=1)
    return -(HARD * hard.sum() + (1 - HARD) * soft.sum())


def main(steps=100):
    """Trains; returns the losses."""
    rng = np.random.default_rng(7)
    x = normal(rng, 128, 6)
    teacher, student = first_params(32, 0), first_params(6, 1)
    labels = np.argmax(network(teacher, x), axis=1)
    schedule = lr_scheduler.PolyScheduler(
        max_update=90, base_lr=0.5, pwr=2, final_lr=0.01, warmup_steps=10
    )
    trainer = Trainer(
        student, optimizer.SGD(momentum=0.9, wd=1e-3, lr_scheduler=schedule, learning_rate=0.5)
    )
    losses = []
    for _ in range(steps):
        rows = rng.integers(len(x), size=BATCH)
        loss, grads = loss_and_grads(trainer.params, teacher, x[rows], labels[rows])
        trainer.step(grads, BATCH)
        losses.append(float(loss) / BATCH)
    return losses


if __name__ == "__main__":
    run(main)
