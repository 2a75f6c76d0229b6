"""Trains two generators and two discriminators against each other, four Trainers in turn.

After the pattern of gluon-cv's CycleGAN, on points in place of pictures. `gan.py` is this program
on jaxmxopt.
"""

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import nn
from tasks import first_weights, normal, put, run

BATCH, CYCLE, LOWERED = 16, 4.0, 12


def network(units, seed):
    """Return two layers with their first weights."""
    net = nn.Sequential()
    net.add(nn.Dense(8, activation="tanh", in_units=2), nn.Dense(units, in_units=8))
    shapes = {"0.weight": (8, 2), "0.bias": (8,), "1.weight": (units, 8), "1.bias": (units,)}
    put(net, first_weights(shapes, seed), mx.nd.array)
    return net


def main(steps=100):
    """Trains; returns the generators' losses."""
    rng = np.random.default_rng(3)
    to_b, to_a = network(2, 0), network(2, 1)
    judge_a, judge_b = network(1, 2), network(1, 3)
    l2, l1 = gluon.loss.L2Loss(), gluon.loss.L1Loss()
    settings = {"learning_rate": 0.005, "beta1": 0.5}
    trainer_to_b, trainer_to_a, trainer_a, trainer_b = (
        gluon.Trainer(net.collect_params(), "adam", settings)
        for net in (to_b, to_a, judge_a, judge_b)
    )
    losses = []
    for step in range(steps):
        a = mx.nd.array(normal(rng, BATCH, 2))
        b = mx.nd.array(normal(rng, BATCH, 2) * 0.5 + 1)
        if step == LOWERED:
            for trainer in (trainer_to_b, trainer_to_a, trainer_a, trainer_b):
                trainer.set_learning_rate(trainer.learning_rate / 2)
        with autograd.record():
            fake_b, fake_a = to_b(a), to_a(b)
            fooled = l2(judge_b(fake_b), mx.nd.ones((BATCH, 1)))
            fooled = fooled + l2(judge_a(fake_a), mx.nd.ones((BATCH, 1)))
            cycle = l1(to_a(fake_b), a) + l1(to_b(fake_a), b)
            loss = fooled + CYCLE * cycle
        loss.backward()
        trainer_to_b.step(BATCH)
        trainer_to_a.step(BATCH)
        for judge, trainer, real, fake in (
            (judge_a, trainer_a, a, fake_a),
            (judge_b, trainer_b, b, fake_b),
        ):
            with autograd.record():
                wrong = l2(judge(real), mx.nd.ones((BATCH, 1)))
                wrong = wrong + l2(judge(fake.detach()), mx.nd.zeros((BATCH, 1)))
            wrong.backward()
            trainer.step(BATCH)
        losses.append(loss.mean().asscalar())
    return losses


if __name__ == "__main__":
    run(main)
