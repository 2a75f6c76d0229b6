"""Fine-tunes an encoder with a Trainer, after the pattern of gluon-nlp's scripts for BERT.

`bert_mxnet.py` is what it was on MXNet. The gradients of a few batches are added up by hand, and
what is clipped is returned.
"""

import jax
import jax.numpy as jnp
import numpy as np
from tasks import first_weights, run

from jaxmxopt import Trainer, amp

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


def encoder(params, words):
    """Return scores: one layer of attention, and a classifier of its mean."""
    hidden = params["embed.weight"][words]
    scores = hidden @ params["query.weight"].T @ hidden.mT
    value = hidden @ params["value.weight"].T + params["value.bias"]
    hidden = hidden + jax.nn.softmax(scores) @ value
    hidden = hidden - hidden.mean(axis=-1, keepdims=True)
    hidden = hidden / jnp.sqrt((hidden**2).mean(axis=-1, keepdims=True) + 1e-5)
    hidden = hidden * params["norm.gamma"] + params["norm.beta"]
    return hidden.mean(axis=1) @ params["out.weight"].T + params["out.bias"]


@jax.jit
@jax.value_and_grad
def loss_and_grads(params, words, labels):
    """Return the mean loss over ACCUMULATE, and its gradients."""
    scores = jax.nn.log_softmax(encoder(params, words))
    loss = -jnp.take_along_axis(scores, labels[:, None], axis=1).mean()
    return loss / ACCUMULATE


def main(steps=100):
    """Trains; returns the losses."""
    rng = np.random.default_rng(1)
    words = rng.integers(WORDS, size=(64, LENGTH))
    labels = (words[:, 0] > words[:, 1]).astype(np.int32)
    params = first_weights(SHAPES) | {"norm.gamma": jnp.ones(WIDTH)}
    trainer = Trainer(
        params,
        "adam",
        {"learning_rate": 0.01, "epsilon": 1e-6, "wd": 0.01},
        update_on_kvstore=False,
    )
    trainer.optimizer.set_wd_mult({"*.beta": 0.0, "*.gamma": 0.0, "*.bias": 0.0})
    zeros = jax.tree.map(jnp.zeros_like, trainer.params)

    losses, number, added = [], 0, zeros
    for step in range(steps):
        rows = rng.integers(len(labels), size=BATCH)
        loss, grads = loss_and_grads(trainer.params, words[rows], labels[rows])
        added = jax.tree.map(jnp.add, added, grads)
        losses.append(float(loss) * ACCUMULATE)
        if (step + 1) % ACCUMULATE:
            continue
        number += 1
        trainer.set_learning_rate(0.01 * min(number / 10, (60 - number) / 50))
        added = trainer.allreduce_grads(added)
        added, _ = amp.clip_global_norm(added, 0.5)
        trainer.update(added, 1)
        added = zeros
    return losses


if __name__ == "__main__":
    run(main)
