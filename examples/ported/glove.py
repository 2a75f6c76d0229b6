"""Trains word vectors from counts of pairs, with row-sparse gradients and AdaGrad: GloVe.

`glove_mxnet.py` is what it was on MXNet. `sparse_grad=True` has become `value_and_row_grad`; rows
that a batch names twice are added up by the update, and by `unique` for the norm.
"""

import jax
import jax.numpy as jnp
import numpy as np
from tasks import first_weights, run

from jaxmxopt import Trainer, value_and_row_grad

WORDS, WIDTH, BATCH, CLIP = 30, 4, 16, 0.5
SHAPES = {
    "source.weight": (WORDS, WIDTH),
    "source_bias.weight": (WORDS, 1),
    "context.weight": (WORDS, WIDTH),
    "context_bias.weight": (WORDS, 1),
}


def glove(params, row, col, counts):
    """Return the sum of the losses of pairs."""
    found = (params["source.weight"][row] * params["context.weight"][col]).sum(axis=1)
    biases = params["source_bias.weight"][row] + params["context_bias.weight"][col]
    found = found + biases.reshape(-1)
    return (jnp.clip(counts / 10, 0, 1) ** 0.75 * (found - jnp.log(counts)) ** 2).sum()


@jax.jit
def loss_and_grads(params, row, col, counts):
    """Return the loss, its gradients, which hold rows, and their norm."""
    loss, grads = value_and_row_grad(glove, tables="*")(params, row, col, counts)
    norm = jnp.sqrt(sum((grad.unique().values ** 2).sum() for grad in grads.values()))
    return loss, grads, norm


def main(steps=100):
    """Trains; returns the losses."""
    rng = np.random.default_rng(4)
    params = first_weights(SHAPES)
    trainer = Trainer(params, "adagrad", {"learning_rate": 0.1, "eps": 1e-6})
    losses = []
    for _ in range(steps):
        row, col = np.minimum(rng.geometric(0.1, size=(2, BATCH)), WORDS) - 1
        counts = (1 + 100 / (1 + row + col)).astype("float32")
        loss, grads, norm = loss_and_grads(trainer.params, row, col, counts)
        grads = trainer.allreduce_grads(grads)
        trainer.update(grads, max(1.0, float(norm) / (CLIP * BATCH)) * BATCH)
        losses.append(float(loss) / BATCH)
    return losses


if __name__ == "__main__":
    run(main)
