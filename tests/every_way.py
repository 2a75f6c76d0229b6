"""How far weights are from those of a caller's program, whichever way an update is asked for.

    XLA_FLAGS=--xla_cpu_max_isa=AVX python tests/every_way.py ALGORITHM...

A line of JSON for each algorithm: the largest differences in units of float32's rounding. The flag
keeps XLA from fusing multiply and add, which it does in other places in other programs; with it
they must all be 0.
"""

import functools
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parent))

import jax
import jax.numpy as jnp
import numpy as np
from same_bits import SUMS
from samples import ALGORITHMS, OF_PRODUCTS, distance, is_real, make

import jaxmxopt as mxopt
from jaxmxopt._core import layout

# By element, so that the order of a sum plays no part.
ELEMENTWISE = [cls.__name__ for cls in ALGORITHMS if cls.__name__ not in {*SUMS, *OF_PRODUCTS}]
STEPS = 2
# Vectors of which there may be many, of two dtypes; a large weight of three axes; a matrix.
SHAPES = {f"v{k}": (16,) for k in range(2)} | {f"h{k}": (8,) for k in range(2)}
SHAPES |= {"large": (26, 5, 127), "f_short": (37, 11)}
# A tree of few.
FEW = ("f_short", "v0")


def tree(seed: int) -> dict[str, Any]:
    """Weights or gradients; those named h and f are of half precision, and get masters."""
    draw, halves = np.random.default_rng(seed), {"h": jnp.bfloat16, "f": jnp.float16}
    dtypes = {name: halves.get(name[0], jnp.float32) for name in SHAPES}
    return {name: jnp.asarray(draw.normal(size=SHAPES[name]), dtypes[name]) for name in SHAPES}


def definition(name: str) -> mxopt.OptimizerDef:
    """An algorithm with masters."""
    return make(getattr(mxopt, name), multi_precision=True)


def gradients() -> list[Any]:
    """Those of all steps."""
    return [tree(seed) for seed in range(2, 2 + STEPS)]


def by_weight(
    opt: mxopt.OptimizerDef, params: Any, grads: Iterable[Any], update: Callable[..., Any]
) -> Any:
    """Weight by weight."""
    params = dict(params)
    states = {key: opt.create_state_multi_precision(key, params[key]) for key in params}
    for step in grads:
        for key in params:
            params[key], states[key] = update(key, params[key], step[key], states[key])
    return params, states


def in_jit(opt: mxopt.OptimizerDef) -> Callable[..., Any]:
    """The update of a weight as part of a caller's program."""
    return jax.jit(opt.update, static_argnums=0)


def whole(opt: mxopt.OptimizerDef, params: Any, grads: Iterable[Any], step: Any) -> Any:
    """As a tree."""
    state = opt.init(params)
    for each in grads:
        params, state = step(params, each, state)
    return params, state.unpack(params)


def few(tree: Any) -> Any:
    """What belongs to some weights that are few and small."""
    return {name: tree[name] for name in FEW}


def mapped(opt: mxopt.OptimizerDef, models: Any, grads: Iterable[Any]) -> Any:
    """As several trees at once, of which the first is returned."""
    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)  # noqa: E731
    params = stack(models)
    state = jax.vmap(opt.init)(params)
    step = jax.jit(jax.vmap(opt.step))
    for each in grads:
        params, state = step(params, stack(each), state)
    params, state = jax.tree.map(lambda leaf: leaf[0], (params, state))
    return params, state.unpack(params)


def units(actual: Any, expected: Any) -> float:
    """The largest difference, in roundings of the largest element of its array.

    Infinity where NaN or infinities stand in other places, or where counts or keys differ.
    """
    most = 0.0
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        if is_real(a):
            most = max(most, distance(a, b, float(jnp.finfo(a.dtype).eps)))
        elif a.dtype != b.dtype or not np.array_equal(a, b):
            return np.inf
    return most


def donated(opt: mxopt.OptimizerDef) -> Callable[..., Any]:
    """A step that gives its arguments away."""
    return functools.partial(opt.step, donate=True)


def two_models(opt: mxopt.OptimizerDef) -> Any:
    """A model beside another."""
    other = [tree(seed) for seed in range(20, 20 + STEPS)]
    return mapped(opt, [tree(0), tree(1)], zip(gradients(), other, strict=True))


WAYS: dict[str, Callable[[mxopt.OptimizerDef], Any]] = {
    "update": lambda opt: by_weight(opt, few(tree(0)), map(few, gradients()), opt.update),
    "step": lambda opt: whole(opt, tree(0), gradients(), opt.step),
    "step in a jit": lambda opt: whole(opt, tree(0), gradients(), jax.jit(opt.step)),
    "vmap": two_models,
    "few, donated": lambda opt: whole(opt, few(tree(0)), map(few, gradients()), donated(opt)),
}
# On a part of the tree.
OF_FEW = ("update", "few, donated")
# Where the layout of a tree counts.
OF_TREES = ("step in a jit", "vmap")


def compare(name: str, passes: dict[str, tuple[int, Iterable[str]]]) -> dict[str, float]:
    """The differences of one algorithm, in passes with so many weights that share arrays."""
    opt, found = definition(name), {}
    expected = by_weight(opt, tree(0), gradients(), in_jit(opt))
    for pass_, (many, names) in passes.items():
        layout.MANY, before = many, layout.MANY
        for way in names:
            wanted = tuple(map(few, expected)) if way in OF_FEW else expected
            found[f"{way}, {pass_}"] = units(WAYS[way](opt), wanted)
        layout.MANY = before
    return found


PASSES: dict[str, tuple[int, Iterable[str]]] = {
    "as shipped": (layout.MANY, WAYS),
    "arrays shared": (2, OF_TREES),
}

if __name__ == "__main__":
    for algorithm in sys.argv[1:] or ELEMENTWISE:
        line = {"algorithm": algorithm} | compare(algorithm, PASSES)
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
