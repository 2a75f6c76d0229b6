"""How far `step` over a whole tree is from `update` of every weight, in the fast forms' cases.

    XLA_FLAGS=--xla_cpu_max_isa=AVX python tests/fast_forms.py ALGORITHM...

A line of JSON for each algorithm: the largest differences in units of float32's rounding, as a
tree, as a tree of few, as two trees under `vmap`, of weights that are updated in programs by
themselves from those in a caller's, and of rows one by one from rows in blocks. The flag keeps XLA
from fusing multiply and add, which it does in other places in other loops; with it they must all
be 0.
"""

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
from samples import ALGORITHMS, distance, is_real, make

import jaxmxopt as mxopt
from jaxmxopt._core import layout as _layout
from jaxmxopt._core import rows as _rows

# By element, so that the order of a sum plays no part.
ELEMENTWISE = [cls.__name__ for cls in ALGORITHMS if cls.__name__ not in SUMS]
STEPS = 3
# What the narrowest rows are that are changed one by one.
BY_ROW, IN_BLOCKS = 1, 1 << 40
# Vectors that share arrays, where two are enough, of two dtypes; a convolution; what is large
# enough for a call and loops of its own; what takes many short steps, and some of one element.
SHAPES = {f"v{k}": (16,) for k in range(12)} | {f"h{k}": (8,) for k in range(3)}
SHAPES |= {"conv": (8, 5, 3, 3), "large": (130, 127), "h_large": (130, 127)}
SHAPES |= {"short": (37, 11), "f_short": (37, 11)}
# Of which a tree is few.
FEW = ("short", "f_short", "v0")


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


def plain(
    opt: mxopt.OptimizerDef, params: Any, grads: Iterable[Any], update: Callable[..., Any]
) -> Any:
    """Weight by weight, each in the shape it has."""
    states = {key: opt.create_state_multi_precision(key, params[key]) for key in params}
    for step in grads:
        for key in params:
            params[key], states[key] = update(key, params[key], step[key], states[key])
    return params, states


def in_jit(opt: mxopt.OptimizerDef) -> Callable[..., Any]:
    """The update of a weight as part of a caller's program."""
    return jax.jit(opt.update, static_argnums=0)


def whole(opt: mxopt.OptimizerDef, params: Any, grads: Iterable[Any]) -> Any:
    """As a tree."""
    state = opt.init(params)
    for step in grads:
        params, state = opt.step(params, step, state, donate=True)
    return params, state.unpack(params)


def few(tree: Any) -> Any:
    """What belongs to some weights that are few and small."""
    return {name: tree[name] for name in FEW}


def mapped(opt: mxopt.OptimizerDef, models: Any, grads: Iterable[Any]) -> Any:
    """As several trees at once."""
    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)  # noqa: E731
    params = stack(models)
    state = jax.vmap(opt.init)(params)
    step = jax.jit(jax.vmap(opt.step))
    for each in grads:
        params, state = step(params, stack(each), state)
    return [jax.tree.map(lambda leaf: leaf[k], (params, state)) for k in range(len(models))]  # noqa: B023


def lazily(opt: mxopt.OptimizerDef, narrowest: int) -> Any:
    """Some rows of a table, one by one where they are not narrower."""
    _rows.NARROWEST = narrowest
    # It is none of what compiled functions are told apart by.
    jax.clear_caches()
    opt, draw = opt.replace(lazy_update=True), np.random.default_rng(3)
    weight = jnp.asarray(draw.normal(size=(40, 16)), jnp.float32)
    state = opt.create_state(0, weight)
    for _ in range(STEPS):
        indices, values = draw.integers(0, 40, 30), draw.normal(size=(30, 16))
        grad = mxopt.RowSparse(np.int32(indices), np.float32(values), (40, 16))
        weight, state = opt.update(0, weight, grad, state)
    return weight, state


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


def compare(name: str) -> dict[str, Any]:
    """The differences of one algorithm."""
    opt = definition(name)
    grads = gradients()
    other = [tree(seed) for seed in range(20, 20 + STEPS)]
    expected = plain(opt, tree(0), grads, in_jit(opt))
    first, _ = mapped(opt, [tree(0), tree(1)], zip(grads, other, strict=True))
    params, state = first
    return {
        "algorithm": name,
        "tree": units(whole(opt, tree(0), grads), expected),
        "few": units(whole(opt, few(tree(0)), map(few, grads)), tuple(map(few, expected))),
        "vmap": units((params, state.unpack(params)), expected),
        "alone": units(plain(opt, tree(0), grads, opt.update), expected),
        "rows": units(lazily(opt, BY_ROW), lazily(opt, IN_BLOCKS)),
    }


if __name__ == "__main__":
    _layout.MANY = 2
    for algorithm in sys.argv[1:] or ELEMENTWISE:
        print(json.dumps(compare(algorithm)), flush=True)
