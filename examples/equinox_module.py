"""Trains an equinox module on handwritten digits, without optax.

    python examples/equinox_module.py          # a few seconds; --quick for a taste

A definition takes any pytree, and None where there is no weight: so `equinox.filter` is all that is
needed.
"""

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import jaxmxopt as mxopt
from jaxmxopt.lr_scheduler import CosineScheduler

BATCH = 128


@eqx.filter_value_and_grad
def loss_of(network: eqx.Module, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy."""
    log_probabilities = jax.nn.log_softmax(jax.vmap(network)(images))
    return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[:, None], axis=1))


@eqx.filter_jit
def train_step(
    opt: mxopt.OptimizerDef,
    network: eqx.Module,
    state: mxopt.State,
    images: jax.Array,
    labels: jax.Array,
) -> tuple[eqx.Module, mxopt.State, jax.Array]:
    """One update; the optimizer is an argument like any other pytree."""
    loss, grads = loss_of(network, images, labels)
    weights, rest = eqx.partition(network, eqx.is_inexact_array)
    weights, state = opt.step(weights, grads, state)
    return eqx.combine(weights, rest), state, loss


def main(arguments: list[str] | None = None) -> float:
    """Trains; returns the held-out accuracy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 steps only")
    steps = 100 if parser.parse_args(arguments).quick else 600

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = (images[order] / 16).astype(np.float32), labels[order]

    network = eqx.nn.MLP(64, 10, width_size=128, depth=2, key=jax.random.key(0))
    schedule = CosineScheduler(steps, base_lr=0.02, final_lr=2e-4, warmup_steps=20)
    opt = mxopt.LAMB(lr_scheduler=schedule, wd=1e-3, wd_mult={"layers/*/bias": 0.0})
    state = opt.init(eqx.filter(network, eqx.is_inexact_array))

    draw = np.random.default_rng(1)
    for step in range(steps):
        batch = draw.integers(0, 1440, BATCH)
        network, state, loss = train_step(opt, network, state, images[batch], labels[batch])
        if step % 50 == 49:
            print(f"step {step + 1}: loss {loss:.4f}")

    predicted = jnp.argmax(jax.vmap(network)(images[1440:]), axis=1)
    accuracy = float(jnp.mean(predicted == labels[1440:]))
    print(f"held out: {accuracy:.2%}")
    return accuracy


if __name__ == "__main__":
    main()
