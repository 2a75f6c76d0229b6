"""Trains on handwritten digits with MXNet: a loop in the style of Module, with an Updater.

`ported_module.py` is this program on jaxmxopt.
"""

import mxnet as mx
import numpy as np
from sklearn.datasets import load_digits

BATCH, NAMES = 64, {0: "fc1_weight", 1: "fc1_bias", 2: "fc2_weight", 3: "fc2_bias"}


def main(steps=400):
    """Trains and prints how far it is."""
    digits = load_digits()
    images = mx.nd.array(digits.images.reshape(-1, 64) / 16)
    labels = mx.nd.array(digits.target)
    rng = np.random.default_rng(0)
    shapes = [(32, 64), (32,), (10, 32), (10,)]
    weights = [mx.nd.array(rng.standard_normal(shape) / 8) for shape in shapes]
    for weight in weights:
        weight.attach_grad()

    schedule = mx.lr_scheduler.FactorScheduler(step=100, factor=0.7, base_lr=0.1)
    optimizer = mx.optimizer.create(
        "sgd",
        momentum=0.9,
        wd=1e-3,
        lr_scheduler=schedule,
        rescale_grad=1 / BATCH,
        param_idx2name=NAMES,
    )
    updater = mx.optimizer.get_updater(optimizer)

    for step in range(steps):
        rows = mx.nd.array(rng.integers(len(labels), size=BATCH))
        with mx.autograd.record():
            hidden = mx.nd.relu(mx.nd.dot(images.take(rows), weights[0].T) + weights[1])
            scores = mx.nd.log_softmax(mx.nd.dot(hidden, weights[2].T) + weights[3])
            loss = -mx.nd.pick(scores, labels.take(rows)).sum()
        loss.backward()
        for index, weight in enumerate(weights):
            updater(index, weight.grad, weight)
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.asscalar() / BATCH:.3f}")


if __name__ == "__main__":
    main()
