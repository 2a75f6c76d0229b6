"""Trains a recurrent language model whose embedding learns at a rate of its own.

`two_rates_mxnet.py` is what it was on MXNet.
"""

import jax
import jax.numpy as jnp
import numpy as np
from tasks import first_weights, run

from jaxmxopt import Trainer, amp

WORDS, WIDTH, BATCH, LENGTH, CLIP = 12, 8, 8, 5, 0.2
SHAPES = {
    "embed.weight": (WORDS, WIDTH),
    "input.weight": (WIDTH, WIDTH),
    "input.bias": (WIDTH,),
    "hidden.weight": (WIDTH, WIDTH),
    "decode.weight": (WORDS, WIDTH),
    "decode.bias": (WORDS,),
}


def model(params, words, hidden):
    """Return scores of the next words, and the hidden state."""

    def step(hidden, word):
        given = params["embed.weight"][word] @ params["input.weight"].T + params["input.bias"]
        hidden = jnp.tanh(given + hidden @ params["hidden.weight"].T)
        return hidden, hidden @ params["decode.weight"].T + params["decode.bias"]

    hidden, scores = jax.lax.scan(step, hidden, words.T)
    return scores.swapaxes(0, 1), hidden


@jax.jit
def loss_and_grads(params, words, following, hidden):
    """Return the loss summed over the batch, the hidden state, and the gradients."""

    def loss_of(params):
        scores, after = model(params, words, hidden)
        scores = jax.nn.log_softmax(scores)
        picked = jnp.take_along_axis(scores, following[..., None], axis=-1)[..., 0]
        return -picked.mean(axis=1).sum(), after

    return jax.value_and_grad(loss_of, has_aux=True)(params)


def text(rng):
    """Return words, each of which mostly follows from the one before."""
    words = [0]
    for noise in rng.integers(WORDS, size=BATCH * (LENGTH * 20 + 1) - 1):
        words.append((words[-1] * 5 + 1) % WORDS if noise > 2 else noise)
    return np.array(words).reshape(BATCH, -1)


def main(steps=100):
    """Trains; returns the losses."""
    words = text(np.random.default_rng(5))
    params = first_weights(SHAPES)
    trainer = Trainer(params, "sgd", {"learning_rate": 4.0, "momentum": 0.5, "wd": 1e-4})
    trainer.optimizer.set_lr_mult({"embed.*": 0.25})
    hidden, losses, best = jnp.zeros((BATCH, WIDTH)), [], float("inf")
    for step in range(steps):
        start = step % 20 * LENGTH
        seen = words[:, start : start + LENGTH]
        following = words[:, start + 1 : start + LENGTH + 1]
        (loss, hidden), grads = loss_and_grads(trainer.params, seen, following, hidden)
        grads, _ = amp.clip_global_norm(grads, CLIP * BATCH)
        trainer.step(grads, BATCH)
        losses.append(float(loss) / BATCH)
        if step % 20 == 19:
            recent = np.mean(losses[-20:])
            if recent > 0.9 * best:
                trainer.set_learning_rate(trainer.learning_rate / 4)
            best = min(best, recent)
    return losses


if __name__ == "__main__":
    run(main)
