"""Trains a recurrent language model whose embedding learns at a rate of its own.

After the pattern of the word language models of gluon and gluon-nlp: `setattr` on the parameters of
one block, gradients clipped to a norm that grows with the batch, and a rate divided by 4 where the
validation got no better. `two_rates.py` is this program on jaxmxopt.
"""

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import nn
from tasks import first_weights, put, run

WORDS, WIDTH, BATCH, LENGTH, CLIP = 12, 8, 8, 5, 0.2
SHAPES = {
    "embed.weight": (WORDS, WIDTH),
    "input.weight": (WIDTH, WIDTH),
    "input.bias": (WIDTH,),
    "hidden.weight": (WIDTH, WIDTH),
    "decode.weight": (WORDS, WIDTH),
    "decode.bias": (WORDS,),
}


class Model(gluon.Block):
    """A plain recurrent network."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.embed = nn.Embedding(WORDS, WIDTH)
            self.input = nn.Dense(WIDTH, in_units=WIDTH)
            self.hidden = nn.Dense(WIDTH, in_units=WIDTH, use_bias=False)
            self.decode = nn.Dense(WORDS, in_units=WIDTH)

    def forward(self, words, hidden):
        """Return scores of the next words, and the hidden state."""
        scores = []
        for step in range(LENGTH):
            hidden = mx.nd.tanh(self.input(self.embed(words[:, step])) + self.hidden(hidden))
            scores.append(self.decode(hidden))
        return mx.nd.stack(*scores, axis=1), hidden


def text(rng):
    """Return words, each of which mostly follows from the one before."""
    words = [0]
    for noise in rng.integers(WORDS, size=BATCH * (LENGTH * 20 + 1) - 1):
        words.append((words[-1] * 5 + 1) % WORDS if noise > 2 else noise)
    return np.array(words).reshape(BATCH, -1)


def main(steps=100):
    """Trains; returns the losses."""
    words = text(np.random.default_rng(5))
    net = Model()
    put(net, first_weights(SHAPES), mx.nd.array)
    net.embed.collect_params().setattr("lr_mult", 0.25)
    trainer = gluon.Trainer(
        net.collect_params(), "sgd", {"learning_rate": 4.0, "momentum": 0.5, "wd": 1e-4}
    )
    params = [p for p in net.collect_params().values() if p.grad_req != "null"]
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    hidden, losses, best = mx.nd.zeros((BATCH, WIDTH)), [], float("inf")
    for step in range(steps):
        start = step % 20 * LENGTH
        seen = mx.nd.array(words[:, start : start + LENGTH])
        following = mx.nd.array(words[:, start + 1 : start + LENGTH + 1])
        hidden = hidden.detach()
        with autograd.record():
            scores, hidden = net(seen, hidden)
            loss = loss_of(scores, following)
        loss.backward()
        gluon.utils.clip_global_norm([p.grad() for p in params], CLIP * BATCH)
        trainer.step(BATCH)
        losses.append(loss.mean().asscalar())
        if step % 20 == 19:
            recent = np.mean(losses[-20:])
            if recent > 0.9 * best:
                trainer.set_learning_rate(trainer.learning_rate / 4)
            best = min(best, recent)
    return losses


if __name__ == "__main__":
    run(main)
