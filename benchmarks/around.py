"""The parts around an algorithm in a training: clipping, guards, averages, groups, precision."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import jaxmxopt as mxopt
from benchmarks.contenders import DECAY, OPTAX, OURS, RATE, Arrays, optax_update
from benchmarks.timing import Run
from jaxmxopt.amp import all_finite

__all__ = ["CASES", "runs"]


class Side(NamedTuple):
    """One contender: a state of weights, and `step(params, grads, state)`."""

    init: Callable[[Any], Any]
    step: Callable[[Any, Any, Any], Any]


class Case(NamedTuple):
    """The same by both; `steps` of them make one run."""

    ours: Side
    theirs: Side
    dtype: Any = jnp.float32
    steps: int = 1


def _ours(opt: Any) -> Side:
    return Side(opt.init, opt.step)


def _optax(tx: Any) -> Side:
    return Side(tx.init, functools.partial(optax_update, tx))


def _guarded() -> Case:
    opt = OURS["adam"]()
    ours = Side(opt.init, lambda p, g, s: opt.step(p, g, s, where=all_finite(g)))
    return Case(ours, _optax(optax.apply_if_finite(OPTAX["adam"](), 5)))


def _averaged() -> Case:
    inner = _optax(OPTAX["adam"]())

    def step(params: Any, grads: Any, state: Any) -> Any:
        (params, moments), average = inner.step(params, grads, state[0]), state[1]
        return params, (moments, optax.incremental_update(params, average, 0.01))

    theirs = Side(lambda params: (inner.init(params), jax.tree.map(jnp.copy, params)), step)
    return Case(_ours(mxopt.EMA(OURS["adam"](), decay=0.99)), theirs)


def _with_masters() -> Case:
    inner = _optax(OPTAX["adam"]())

    def wide(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)

    def step(params: Any, grads: Any, state: Any) -> Any:
        masters, moments = inner.step(state[1], wide(grads), state[0])
        return jax.tree.map(lambda m, p: m.astype(p.dtype), masters, params), (moments, masters)

    ours = _ours(OURS["adam"]().replace(multi_precision=True))
    theirs = Side(lambda params: (inner.init(wide(params)), wide(params)), step)
    return Case(ours, theirs, jnp.bfloat16)


def _grouped() -> Case:
    kinds = {"bias": DECAY / 2, "kernel": DECAY}
    ours = {f"{kind}*": mxopt.AdamW(learning_rate=RATE, wd=wd) for kind, wd in kinds.items()}
    theirs = {kind: optax.adamw(RATE, weight_decay=wd) for kind, wd in kinds.items()}

    def labels(params: Any) -> dict[str, str]:
        return {name: name.rstrip("0123456789") for name in params}

    return Case(_ours(mxopt.Groups(ours)), _optax(optax.multi_transform(theirs, labels)))


CASES: dict[str, Callable[[], Case]] = {
    "adamw, norm clipped": lambda: Case(
        _ours(mxopt.ClipGlobalNorm(OURS["adamw"](), max_norm=1.0)),
        _optax(optax.chain(optax.clip_by_global_norm(1.0), OPTAX["adamw"]())),
    ),
    "adam, guarded": _guarded,
    "adam, four gradients an update": lambda: Case(
        _ours(mxopt.Accumulate(OURS["adam"](), every=4)),
        _optax(optax.MultiSteps(OPTAX["adam"](), 4)),
        steps=4,
    ),
    "adam, averaged": _averaged,
    "adamw, two groups": _grouped,
    "adam, bfloat16 with masters": _with_masters,
    "adam, bfloat16 without": lambda: Case(
        _ours(OURS["adam"]()), _optax(OPTAX["adam"]()), jnp.bfloat16
    ),
    "sgd, bfloat16 without": lambda: Case(
        _ours(OURS["sgd"]()), _optax(OPTAX["sgd"]()), jnp.bfloat16
    ),
}


def runs(case: Case, weights: Arrays, grads: Arrays) -> dict[str, Run]:
    """Step of both, each in a jit of its own whose weights and state are donated."""
    params, given = (_named(arrays, case.dtype) for arrays in (weights, grads))
    return {
        "jaxmxopt": _repeated(case.ours, case.steps, params, given),
        "optax": _repeated(case.theirs, case.steps, params, given),
    }


def _named(arrays: Sequence[Any], dtype: Any) -> dict[str, Any]:
    kinds = ("bias" if array.ndim == 1 else "kernel" for array in arrays)
    named = {f"{kind}{n}": array for n, (kind, array) in enumerate(zip(kinds, arrays, strict=True))}
    return {name: jnp.asarray(array, dtype) for name, array in named.items()}


def _repeated(side: Side, steps: int, params: Any, grads: Any) -> Run:
    step = jax.jit(lambda p, s, g: side.step(p, g, s), donate_argnums=(0, 1))
    kept = [jax.tree.map(jnp.copy, params), side.init(params)]

    def run() -> None:
        for _ in range(steps):
            kept[0], kept[1] = step(kept[0], kept[1], grads)
        jax.block_until_ready(kept)

    return run
