"""A small training that runs on MXNet and on jaxmxopt, in the same words.

    python _program.py mxnet digits.npz out.json
    python _program.py jaxmxopt digits.npz out.json

Network and gradients are NumPy's, the same under both: what differs is the optimizer.
"""

import json
import sys

import numpy as np

BATCH, STEPS = 64, 200
NAMES = {0: "fc1_weight", 1: "fc1_bias", 2: "fc2_weight", 3: "fc2_bias"}
OPTIMIZERS = {
    "sgd": {"momentum": 0.9, "wd": 1e-3, "clip_gradient": 0.1},
    "nag": {"momentum": 0.9, "learning_rate": 0.05},
    "adam": {"learning_rate": 0.01, "wd": 1e-4},
    "adagrad": {"learning_rate": 0.05},
    "rmsprop": {"learning_rate": 0.003, "centered": True},
    "adadelta": {"wd": 1e-4},
    "ftrl": {"learning_rate": 0.2, "lamda1": 1e-4},
    "signum": {"learning_rate": 0.002},
    "lamb": {"learning_rate": 0.01},
    "signs": {"learning_rate": 0.002, "wd": 0.01},
}


if sys.argv[1] == "mxnet":
    import mxnet as mx

    optimizer, lr_scheduler, array, sign = mx.optimizer, mx.lr_scheduler, mx.nd.array, mx.nd.sign

    def numpy(weight):
        return weight.asnumpy()

    def put(old, new):
        old[:] = new
        return old

    def updated(updater, index, grad, weight):
        updater(index, grad, weight)
        return weight

else:
    import jax.numpy as jnp

    from jaxmxopt import lr_scheduler, optimizer

    array, sign, numpy = jnp.asarray, jnp.sign, np.asarray

    def put(old, new):
        return new

    def updated(updater, index, grad, weight):
        return updater(index, grad, weight)


# From here on the words are the same for both.


@optimizer.register
class Signs(optimizer.Optimizer):
    def __init__(self, beta=0.75, **kwargs):
        super().__init__(**kwargs)
        self.beta = beta

    def create_state(self, index, weight):
        return weight * 0

    def update(self, index, weight, grad, state):
        self._update_count(index)
        lr, wd = self._get_lr(index), self._get_wd(index)
        state = put(state, self.beta * state + (1 - self.beta) * (grad * self.rescale_grad))
        return put(weight, weight - lr * (sign(state) + wd * weight)), state


def loss_and_grads(weights, x, labels):
    w1, b1, w2, b2 = weights
    before = x @ w1.T + b1
    hidden = np.maximum(before, 0)
    scores = hidden @ w2.T + b2
    scores = scores - scores.max(axis=1, keepdims=True)
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -np.log(shares[rows, labels]).sum()
    shares[rows, labels] -= 1
    back = (shares @ w2) * (before > 0)
    grads = [back.T @ x, back.sum(axis=0), shares.T @ hidden, shares.sum(axis=0)]
    return loss, [grad.astype(np.float32) for grad in grads]


def train(name, settings, images, labels):
    rng = np.random.default_rng(0)
    shapes = [(32, 64), (32,), (10, 32), (10,)]
    weights = [array((rng.standard_normal(shape) / 8).astype(np.float32)) for shape in shapes]
    if name == "sgd":
        settings = dict(settings)
        settings["lr_scheduler"] = lr_scheduler.FactorScheduler(step=50, factor=0.7, base_lr=0.1)
    opt = optimizer.create(name, rescale_grad=1 / BATCH, param_idx2name=NAMES, **settings)
    opt.set_lr_mult({"fc1_bias": 2.0})
    updater = optimizer.get_updater(opt)
    losses = []
    for _ in range(STEPS):
        rows = rng.integers(len(labels), size=BATCH)
        loss, grads = loss_and_grads([numpy(w) for w in weights], images[rows], labels[rows])
        for index, grad in enumerate(grads):
            weights[index] = updated(updater, index, array(grad), weights[index])
        losses.append(float(loss) / BATCH)
    return losses


def main():
    with np.load(sys.argv[2]) as digits:
        images = (digits["images"].reshape(-1, 64) / 16).astype(np.float32)
        labels = digits["labels"]
    losses = {name: train(name, of, images, labels) for name, of in OPTIMIZERS.items()}
    with open(sys.argv[3], "w") as file:
        json.dump(losses, file)


main()
