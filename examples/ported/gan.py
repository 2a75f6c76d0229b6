"""Trains two generators and two discriminators against each other, four Trainers in turn.

`gan_mxnet.py` is what it was on MXNet.
"""

import jax
import jax.numpy as jnp
import numpy as np
from tasks import first_weights, normal, run

from jaxmxopt import Trainer

BATCH, CYCLE, LOWERED = 16, 4.0, 12


def first_params(units, seed):
    """Return the first weights of two layers."""
    shapes = {"0.weight": (8, 2), "0.bias": (8,), "1.weight": (units, 8), "1.bias": (units,)}
    return first_weights(shapes, seed)


def network(params, x):
    """Return the output of two layers."""
    hidden = jnp.tanh(x @ params["0.weight"].T + params["0.bias"])
    return hidden @ params["1.weight"].T + params["1.bias"]


def l1(x, y):
    """Return gluon's L1Loss, summed over the batch."""
    return jnp.abs(x - y).mean(axis=1).sum()


def l2(x, y):
    """Return gluon's L2Loss, summed over the batch."""
    return ((x - y) ** 2).mean(axis=1).sum() / 2


@jax.jit
def generators_loss(to, judge_a, judge_b, a, b):
    """Return the loss of both generators with what they made, and the gradients."""

    def loss_of(to):
        to_b, to_a = to
        fake_b, fake_a = network(to_b, a), network(to_a, b)
        fooled = l2(network(judge_b, fake_b), 1.0) + l2(network(judge_a, fake_a), 1.0)
        cycle = l1(network(to_a, fake_b), a) + l1(network(to_b, fake_a), b)
        return fooled + CYCLE * cycle, (fake_a, fake_b)

    return jax.value_and_grad(loss_of, has_aux=True)(to)


@jax.jit
@jax.grad
def judge_grads(judge, real, fake):
    """Return the gradients of a discriminator."""
    return l2(network(judge, real), 1.0) + l2(network(judge, fake), 0.0)


def main(steps=100):
    """Trains; returns the generators' losses."""
    rng = np.random.default_rng(3)
    settings = {"learning_rate": 0.005, "beta1": 0.5}
    trainer_to_b, trainer_to_a, trainer_a, trainer_b = (
        Trainer(first_params(units, seed), "adam", settings)
        for seed, units in enumerate((2, 2, 1, 1))
    )
    losses = []
    for step in range(steps):
        a = normal(rng, BATCH, 2)
        b = normal(rng, BATCH, 2) * np.float32(0.5) + 1
        if step == LOWERED:
            for trainer in (trainer_to_b, trainer_to_a, trainer_a, trainer_b):
                trainer.set_learning_rate(trainer.learning_rate / 2)
        to = trainer_to_b.params, trainer_to_a.params
        (loss, fakes), grads = generators_loss(to, trainer_a.params, trainer_b.params, a, b)
        trainer_to_b.step(grads[0], BATCH)
        trainer_to_a.step(grads[1], BATCH)
        for trainer, real, fake in zip((trainer_a, trainer_b), (a, b), fakes, strict=True):
            trainer.step(judge_grads(trainer.params, real, fake), BATCH)
        losses.append(float(loss) / BATCH)
    return losses


if __name__ == "__main__":
    run(main)
