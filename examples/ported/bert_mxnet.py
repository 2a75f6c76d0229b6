"""Fine-tunes an encoder with gluon, after the pattern of gluon-nlp's scripts for BERT.

The gradients of a few batches are added up by `grad_req="add"`, clipped to a global norm between
`allreduce_grads` and `update`, and cleared. Biases and layer norms do not decay; the learning rate
is set by hand, up and down again. `bert.py` is this program on jaxmxopt.
"""

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import nn
from tasks import first_weights, put, run

WORDS, LENGTH, WIDTH, BATCH, ACCUMULATE = 20, 6, 8, 8, 2
SHAPES = {
    "embed.weight": (WORDS, WIDTH),
    "query.weight": (WIDTH, WIDTH),
    "value.weight": (WIDTH, WIDTH),
    "value.bias": (WIDTH,),
    "norm.gamma": (WIDTH,),
    "norm.beta": (WIDTH,),
    "out.weight": (2, WIDTH),
    "out.bias": (2,),
}


class Encoder(gluon.Block):
    """One layer of attention, and a classifier of its mean."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.embed = nn.Embedding(WORDS, WIDTH)
            self.query = nn.Dense(WIDTH, in_units=WIDTH, flatten=False, use_bias=False)
            self.value = nn.Dense(WIDTH, in_units=WIDTH, flatten=False)
            self.norm = nn.LayerNorm(in_channels=WIDTH, epsilon=1e-5)
            self.out = nn.Dense(2, in_units=WIDTH)

    def forward(self, words):
        """Return scores."""
        hidden = self.embed(words)
        scores = mx.nd.batch_dot(self.query(hidden), hidden, transpose_b=True)
        mixed = mx.nd.batch_dot(mx.nd.softmax(scores), self.value(hidden))
        return self.out(self.norm(hidden + mixed).mean(axis=1))


def main(steps=100):
    """Trains; returns the losses."""
    rng = np.random.default_rng(1)
    words = rng.integers(WORDS, size=(64, LENGTH))
    labels = (words[:, 0] > words[:, 1]).astype(np.int32)
    net = Encoder()
    put(net, first_weights(SHAPES), mx.nd.array)
    net.norm.gamma.set_data(mx.nd.ones(WIDTH))
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(
        net.collect_params(),
        "adam",
        {"learning_rate": 0.01, "epsilon": 1e-6, "wd": 0.01},
        update_on_kvstore=False,
    )
    for _, parameter in net.collect_params(".*beta|.*gamma|.*bias").items():
        parameter.wd_mult = 0.0
    params = [p for p in net.collect_params().values() if p.grad_req != "null"]
    for parameter in params:
        parameter.grad_req = "add"

    losses, number = [], 0
    for step in range(steps):
        rows = rng.integers(len(labels), size=BATCH)
        with autograd.record():
            loss = loss_of(net(mx.nd.array(words[rows])), mx.nd.array(labels[rows])).mean()
            loss = loss / ACCUMULATE
        loss.backward()
        losses.append(loss.asscalar() * ACCUMULATE)
        if (step + 1) % ACCUMULATE:
            continue
        number += 1
        trainer.set_learning_rate(0.01 * min(number / 10, (60 - number) / 50))
        trainer.allreduce_grads()
        gluon.utils.clip_global_norm([p.grad() for p in params], 0.5)
        trainer.update(1)
        for parameter in params:
            parameter.zero_grad()
    return losses


if __name__ == "__main__":
    run(main)
