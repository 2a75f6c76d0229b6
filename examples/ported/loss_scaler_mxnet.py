"""Trains float16 weights with a loss scaler around a Trainer, after gluon-nlp's FP16Trainer.

The scale begins so high that the first gradients overflow. `loss_scaler.py` is this program on
jaxmxopt.
"""

import math

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from tasks import first_weights, normal, put, run

BATCH = 16
SHAPES = {"hidden.weight": (8, 6), "hidden.bias": (8,), "out.weight": (3, 8), "out.bias": (3,)}


class Dense(gluon.nn.Dense):
    """A layer with float16 weights that multiplies in float32."""

    def forward(self, x):
        """Return the layer's output."""
        weight, bias = self.weight.data(), self.bias.data()
        return mx.nd.dot(x, weight.astype("float32").T) + bias.astype("float32")


class Net(gluon.Block):
    """Two layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.hidden = Dense(8, in_units=6, dtype="float16")
            self.out = Dense(3, in_units=8, dtype="float16")

    def forward(self, x):
        """Return scores."""
        return self.out(mx.nd.tanh(self.hidden(x)))


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

    def backward(self, loss):
        """Compute gradients of the scaled loss."""
        with autograd.record():
            scaled = loss * self.scaler.loss_scale
        scaled.backward()

    def step(self, batch_size, max_norm):
        """Update, unless a gradient is not finite."""
        self.trainer.allreduce_grads()
        grads = [p.grad().astype("float32") for p in self.trainer._params]
        norm = math.sqrt(sum((grad**2).sum().asscalar() for grad in grads))
        overflow = not math.isfinite(norm)
        if not overflow:
            ratio = max(1.0, norm / (max_norm * self.scaler.loss_scale))
            self.trainer.update(batch_size * self.scaler.loss_scale * ratio)
        self.scaler.update(overflow)


def main(steps=100):
    """Trains; returns the losses."""
    rng = np.random.default_rng(2)
    x, teacher = normal(rng, 128, 6), normal(rng, 6, 3)
    labels = (x @ teacher).argmax(axis=1)
    net = Net()
    put(net, first_weights(SHAPES), lambda weight: mx.nd.array(weight, dtype="float16"))
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(
        net.collect_params(),
        "adam",
        {"learning_rate": 0.005, "multi_precision": True},
        update_on_kvstore=False,
    )
    trainer = HalfTrainer(trainer)
    losses = []
    for _ in range(steps):
        rows = rng.integers(len(labels), size=BATCH)
        with autograd.record():
            loss = loss_of(net(mx.nd.array(x[rows])), mx.nd.array(labels[rows]))
        trainer.backward(loss)
        trainer.step(BATCH, max_norm=8.0)
        losses.append(loss.mean().asscalar())
    return losses


if __name__ == "__main__":
    run(main)
