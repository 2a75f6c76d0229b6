"""Measure what each mechanism of the engine buys: a step with all against a step without one.

`python -m benchmarks.ablation` prints the table; a mechanism that buys less than a tenth anywhere
is one to delete.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax

from benchmarks import contenders
from benchmarks.timing import interleaved, seconds
from benchmarks.trees import TREES
from jaxmxopt._core import algorithm as core_algorithm
from jaxmxopt._core import engine, layout, programs

ROUNDS = 15


def _as_it_is(arrays: Any) -> Any:
    return arrays


# A mechanism is switched off by replacing one name.
OFF: dict[str, Callable[[], Any]] = {
    "all": contextlib.nullcontext,
    "flattened convolutions": lambda: mock.patch.object(engine, "VECTORISED", 0),
    "calls that are not inlined": lambda: mock.patch.object(engine, "_opaque", _as_it_is),
    "stacked small weights": lambda: mock.patch.object(layout, "MANY", 10**9),
    "zero decay left out": lambda: mock.patch.object(core_algorithm, "sealed", lambda x: x),
}


@contextlib.contextmanager
def without(mechanism: str) -> Iterator[None]:
    """Trace and compile what is made here without a mechanism."""
    programs.step.cache_clear()
    jax.clear_caches()
    with OFF[mechanism]():
        yield
    programs.step.cache_clear()


def steps(tree: str, algorithm: str, rounds: int) -> dict[str, float]:
    """Return the milliseconds of a step with all mechanisms, without each, and of optax."""
    shapes = TREES[tree]()
    weights, grads = (contenders.arrays_of(shapes, seed) for seed in (0, 1))
    runs: dict[str, Callable[[], None]] = {}
    for mechanism in OFF:
        with without(mechanism):
            runs[mechanism] = contenders.ours(algorithm, weights, grads)
            runs[mechanism]()
    runs["optax"] = contenders.optax_step(algorithm, weights, grads)
    return interleaved(
        {name: functools.partial(seconds, run) for name, run in runs.items()}, rounds
    )


def main() -> None:
    """Print a table: without each mechanism, as a multiple of the time with all."""
    jax.config.update("jax_platforms", "cpu")
    print(f"jax {jax.__version__}")
    print("| case | " + " | ".join(list(OFF)[1:]) + " | against optax |")
    print("|---" * (len(OFF) + 1) + "|")
    for tree, algorithm in itertools.product(TREES, ("adam", "sgd")):
        found = steps(tree, algorithm, ROUNDS)
        everything = found.pop("all")
        other = found.pop("optax")
        shown = " | ".join(f"{taken / everything:.2f}" for taken in found.values())
        print(f"| {algorithm} {tree} | {shown} | {everything / other:.2f} |", flush=True)
        jax.clear_caches()


if __name__ == "__main__":
    main()
