"""Trains a small network on the softened scores of a large one that stays as it is.

After the pattern of gluon-cv's script for distillation: the teacher's parameters have
`grad_req="null"`, and one Trainer has the student's alone. `distillation.py` is this program on
jaxmxopt.
"""

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from tasks import first_weights, normal, put, run

BATCH, HOT, HARD = 16, 3.0, 0.3


def network(width, seed):
    """Return two layers with their first weights."""
    net = gluon.nn.Sequential()
    net.add(gluon.nn.Dense(width, activation="relu", in_units=6))
    net.add(gluon.nn.Dense(4, in_units=width))
    shapes = {"0.weight": (width, 6), "0.bias": (width,), "1.weight": (4, width), "1.bias": (4,)}
    put(net, first_weights(shapes, seed), mx.nd.array)
    return net


def main(steps=100):
    """Trains; returns the losses."""
    rng = np.random.default_rng(7)
    x = normal(rng, 128, 6)
    teacher, student = network(32, 0), network(6, 1)
    teacher.collect_params().setattr("grad_req", "null")
    labels = teacher(mx.nd.array(x)).argmax(axis=1).asnumpy()
    schedule = mx.lr_scheduler.PolyScheduler(
        max_update=90, base_lr=0.5, pwr=2, final_lr=0.01, warmup_steps=10
    )
    trainer = gluon.Trainer(
        student.collect_params(),
        mx.optimizer.SGD(momentum=0.9, wd=1e-3, lr_scheduler=schedule, learning_rate=0.5),
    )
    hard = gluon.loss.SoftmaxCrossEntropyLoss()
    soft = gluon.loss.SoftmaxCrossEntropyLoss(sparse_label=False)
    losses = []
    for _ in range(steps):
        rows = rng.integers(len(x), size=BATCH)
        images = mx.nd.array(x[rows])
        target = mx.nd.softmax(teacher(images) / HOT)
        with autograd.record():
            scores = student(images)
            loss = HARD * hard(scores, mx.nd.array(labels[rows]))
            loss = loss + (1 - HARD) * soft(scores / HOT, target)
        loss.backward()
        trainer.step(BATCH)
        losses.append(loss.mean().asscalar())
    return losses


if __name__ == "__main__":
    run(main)
