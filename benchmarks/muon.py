"""Muon against `optax.contrib.muon`, on the matrices of GPT-2 small.

    python -m benchmarks.muon [--layers 12] [--rounds 5]

The two take turns in one process, so that a busy machine slows both. Weights and gradients are the
same, and so is what is computed but for the order of the products.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmxopt as mxopt

WIDTH = 768
# Of one layer: queries, keys and values; what joins the heads; into and out of the hidden layer.
SHAPES = {"qkv": (WIDTH, 3 * WIDTH), "out": (WIDTH, WIDTH), "up": (WIDTH, 4 * WIDTH)}
SHAPES |= {"down": (4 * WIDTH, WIDTH)}


def drawn(layers: int) -> dict[str, jax.Array]:
    """Weights of all layers."""
    draw = np.random.default_rng(0)
    return {
        f"layer{layer}/{name}": jnp.asarray(draw.normal(size=shape), jnp.float32)
        for layer in range(layers)
        for name, shape in SHAPES.items()
    }


def ours(params: Any) -> Callable[[], Any]:
    """Return a step of jaxmxopt."""
    opt = mxopt.Muon(learning_rate=0.02)
    state, step = opt.init(params), jax.jit(opt.step)
    return lambda: step(params, params, state)


def theirs(params: Any) -> Callable[[], Any]:
    """Return a step of optax."""
    tx = optax.contrib.muon(0.02)
    state = tx.init(params)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(params, state, params)
        return optax.apply_updates(params, updates), state

    return lambda: step(params, state)


def seconds(step: Callable[[], Any]) -> float:
    """Return the time of a step."""
    start = time.perf_counter()
    jax.block_until_ready(step())
    return time.perf_counter() - start


def main() -> None:
    """Print the medians and the median of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    params = drawn(arguments.layers)
    both = ours(params), theirs(params)
    for step in both:
        jax.block_until_ready(step())
    rounds = [[seconds(step) for step in both] for _ in range(arguments.rounds)]
    own, other = (statistics.median(times) for times in zip(*rounds, strict=True))
    ratio = statistics.median(a / b for a, b in rounds)
    sys.stdout.write(f"jaxmxopt {own:.3f} s, optax {other:.3f} s, ratio {ratio:.2f}\n")


if __name__ == "__main__":
    main()
