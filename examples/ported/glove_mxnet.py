"""Trains word vectors from counts of pairs, with row-sparse gradients and AdaGrad: GloVe.

After the pattern of gluon-nlp's script. `glove.py` is this program on jaxmxopt.
"""

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import nn
from tasks import first_weights, put, run

WORDS, WIDTH, BATCH, CLIP = 30, 4, 16, 0.5
SHAPES = {
    "source.weight": (WORDS, WIDTH),
    "source_bias.weight": (WORDS, 1),
    "context.weight": (WORDS, WIDTH),
    "context_bias.weight": (WORDS, 1),
}


class GloVe(gluon.Block):
    """The weighted squares of what two vectors and two biases do not explain of log counts."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.source = nn.Embedding(WORDS, WIDTH, sparse_grad=True)
            self.source_bias = nn.Embedding(WORDS, 1, sparse_grad=True)
            self.context = nn.Embedding(WORDS, WIDTH, sparse_grad=True)
            self.context_bias = nn.Embedding(WORDS, 1, sparse_grad=True)

    def forward(self, row, col, counts):
        """Return the loss of each pair."""
        found = (self.source(row) * self.context(col)).sum(axis=1)
        found = found + (self.source_bias(row) + self.context_bias(col)).reshape(-1)
        return mx.nd.clip(counts / 10, 0, 1) ** 0.75 * (found - mx.nd.log(counts)) ** 2


def main(steps=100):
    """Trains; returns the losses."""
    rng = np.random.default_rng(4)
    net = GloVe()
    put(net, first_weights(SHAPES), mx.nd.array)
    params = list(net.collect_params().values())
    trainer = gluon.Trainer(net.collect_params(), "adagrad", {"learning_rate": 0.1, "eps": 1e-6})
    losses = []
    for _ in range(steps):
        row, col = np.minimum(rng.geometric(0.1, size=(2, BATCH)), WORDS) - 1
        counts = 1 + 100 / (1 + row + col)
        with autograd.record():
            loss = net(mx.nd.array(row), mx.nd.array(col), mx.nd.array(counts)).sum()
        loss.backward()
        trainer.allreduce_grads()
        norm = sum((p.grad().data ** 2).sum() for p in params).sqrt().asscalar()
        trainer.update(max(1.0, norm / (CLIP * BATCH)) * BATCH)
        losses.append(loss.asscalar() / BATCH)
    return losses


if __name__ == "__main__":
    run(main)
