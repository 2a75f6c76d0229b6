"""One whole-tree step of each library, arrays made, compiled and warm."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmxopt as mxopt
from benchmarks.timing import Run

Arrays = Sequence[np.ndarray]
RATE, DECAY = 1e-3, 1e-2

OURS: dict[str, Callable[[], Any]] = {
    "adam": lambda: mxopt.Adam(learning_rate=RATE),
    "sgd": lambda: mxopt.SGD(learning_rate=RATE, momentum=0.9),
    "adamw": lambda: mxopt.AdamW(learning_rate=RATE, wd=DECAY),
    "rmsprop": lambda: mxopt.RMSProp(learning_rate=RATE),
    "lamb": lambda: mxopt.LAMB(learning_rate=RATE, wd=DECAY),
    "adagrad": lambda: mxopt.AdaGrad(learning_rate=RATE),
}
OPTAX: dict[str, Callable[[], Any]] = {
    "adam": lambda: optax.adam(RATE),
    "sgd": lambda: optax.sgd(RATE, momentum=0.9),
    "adamw": lambda: optax.adamw(RATE, weight_decay=DECAY),
    "rmsprop": lambda: optax.rmsprop(RATE),
    "lamb": lambda: optax.lamb(RATE, weight_decay=DECAY),
    "adagrad": lambda: optax.adagrad(RATE),
}


def arrays_of(shapes: Sequence[tuple[int, ...]], seed: int) -> list[np.ndarray]:
    """Random weights or gradients."""
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape, dtype=np.float32) for shape in shapes]


def ours(algorithm: str, weights: Arrays, grads: Arrays) -> Run:
    """`definition.step` with donated buffers."""
    opt = OURS[algorithm]()
    params, g = [jnp.array(w) for w in weights], [jnp.array(x) for x in grads]
    kept = [params, opt.init(params)]

    def run() -> None:
        kept[0], kept[1] = opt.step(kept[0], g, kept[1], donate=True)
        jax.block_until_ready(kept)

    return run


def _in_jit(step: Callable[..., Any], params: Any, state: Any, grads: Any) -> Run:
    """Return a caller's jit around a step, with gradients scaled before and a norm taken after."""

    def train_step(params: Any, state: Any, grads: Any, scale: Any) -> Any:
        params, state = step(params, jax.tree.map(lambda g: g * scale, grads), state)
        return params, state, sum(jnp.vdot(p, p) for p in params)

    compiled = jax.jit(train_step, donate_argnums=(0, 1))
    kept = [params, state]

    def run() -> None:
        kept[0], kept[1], norm = compiled(kept[0], kept[1], grads, np.float32(0.5))
        jax.block_until_ready((kept, norm))

    return run


def ours_in_jit(algorithm: str, weights: Arrays, grads: Arrays) -> Run:
    """`definition.step` in a caller's jit."""
    opt = OURS[algorithm]()
    params = [jnp.array(w) for w in weights]
    return _in_jit(opt.step, params, opt.init(params), [jnp.array(x) for x in grads])


def optax_in_jit(algorithm: str, weights: Arrays, grads: Arrays) -> Run:
    """Return the same with optax."""
    tx = OPTAX[algorithm]()
    params = [jnp.array(w) for w in weights]
    return _in_jit(
        functools.partial(optax_update, tx), params, tx.init(params), [jnp.array(x) for x in grads]
    )


def optax_update(tx: Any, params: Any, grads: Any, state: Any) -> Any:
    """Return new weights and state, as `definition.step` gives them."""
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def optax_step(algorithm: str, weights: Arrays, grads: Arrays) -> Run:
    """optax, jitted, with donated buffers."""
    tx = OPTAX[algorithm]()
    params, g = [jnp.array(w) for w in weights], [jnp.array(x) for x in grads]
    step = jax.jit(lambda p, s, g: optax_update(tx, p, g, s), donate_argnums=(0, 1))
    kept = [params, tx.init(params)]

    def run() -> None:
        kept[0], kept[1] = step(kept[0], kept[1], g)
        jax.block_until_ready(kept)

    return run


def torch_fused(algorithm: str, weights: Arrays, grads: Arrays) -> Run | None:
    """Torch's fused kernels, where it has them."""
    import torch

    kinds: dict[str, Callable[[Any], Any]] = {
        "adam": lambda p: torch.optim.Adam(p, lr=RATE, fused=True),
        "adamw": lambda p: torch.optim.AdamW(p, lr=RATE, weight_decay=DECAY, fused=True),
        "sgd": lambda p: torch.optim.SGD(p, lr=RATE, momentum=0.9, fused=True),
        "adagrad": lambda p: torch.optim.Adagrad(p, lr=RATE, fused=True),
    }
    if algorithm not in kinds:
        return None
    params = [torch.nn.Parameter(torch.from_numpy(w.copy())) for w in weights]
    for param, grad in zip(params, grads, strict=True):
        param.grad = torch.from_numpy(grad.copy())
    return kinds[algorithm](params).step


def memory_limit(algorithm: str, weights: Arrays) -> Run:
    """Each array that the algorithm needs loaded once, and one stored, by one loop in place.

    The loop is over one flat array of the size of all weights, with as many operands as the
    algorithm has arrays: weight, gradient and slots. Slots would be stored too, but a loop of XLA
    on a CPU stores one array; stores in place to what is loaded anyway cost little.
    """
    slots = {"adam": 2, "adamw": 2, "lamb": 2, "sgd": 1, "rmsprop": 1, "adagrad": 1}[algorithm]
    size = sum(w.size for w in weights)
    others = [jnp.full(size, 1e-3) for _ in range(slots + 1)]
    loop = jax.jit(lambda x, others: 0.5 * x + sum(others), donate_argnums=0)
    kept = [jnp.ones(size)]

    def run() -> None:
        kept[0] = jax.block_until_ready(loop(kept[0], others))

    return run
