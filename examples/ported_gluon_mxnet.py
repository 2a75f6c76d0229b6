"""Trains on handwritten digits with MXNet's gluon and its Trainer.

`ported_gluon.py` is this program on jaxmxopt.
"""

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from sklearn.datasets import load_digits

BATCH = 64


def main(steps=400):
    """Trains and prints how far it is."""
    digits = load_digits()
    images = mx.nd.array(digits.images.reshape(-1, 64) / 16)
    labels = mx.nd.array(digits.target)
    net = gluon.nn.Sequential()
    net.add(gluon.nn.Dense(32, activation="relu"), gluon.nn.Dense(10))
    net.initialize(mx.init.Normal(1 / 8))
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.01, "wd": 1e-4})

    rng = np.random.default_rng(0)
    for step in range(steps):
        rows = mx.nd.array(rng.integers(len(labels), size=BATCH))
        with autograd.record():
            loss = loss_of(net(images.take(rows)), labels.take(rows))
        loss.backward()
        if step == steps // 2:
            trainer.set_learning_rate(0.003)
        trainer.step(BATCH)
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.mean().asscalar():.3f}")
    trainer.save_states("digits.states")


if __name__ == "__main__":
    main()
