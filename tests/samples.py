"""Definitions and small trees of weights that suit every algorithm."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmxopt as mxopt

ALGORITHMS = sorted(
    (
        value
        for value in vars(mxopt).values()
        if isinstance(value, type)
        and issubclass(value, mxopt.OptimizerDef)
        and value is not mxopt.OptimizerDef
    ),
    key=lambda cls: cls.__name__,
)

# The others are of today, and MXNet has no class for them.
OF_MXNET = [cls for cls in ALGORITHMS if hasattr(mxopt.optimizer, cls.__name__)]

# Algorithms with products, or factors, of whole matrices.
OF_PRODUCTS = ("Adafactor", "Muon", "SOAP")
# Algorithms that take no vectors and scalars.
OF_MATRICES = ("GroupAdaGrad", "Muon")

# What each algorithm is tried with beside a rate and decay: all of its numbers off their defaults.
OWN: dict[str, dict[str, Any]] = {
    "Adafactor": {"beta2_decay": -0.7, "epsilon1": 1e-4, "epsilon2": 0.01, "clip_threshold": 0.8},
    "AdaBelief": {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3},
    "BERTAdam": {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3},
    "AdaDelta": {"rho": 0.8, "epsilon": 1e-3},
    "AdaGrad": {"eps": 1e-3},
    "Adam": {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3},
    "AdamW": {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3},
    "AdEMAMix": {"beta1": 0.8, "beta2": 0.95, "beta3": 0.99, "epsilon": 1e-3, "alpha": 2.0},
    "Adamax": {"beta1": 0.8, "beta2": 0.95},
    "DCASGD": {"momentum": 0.7, "lamda": 0.1},
    "FTML": {"beta1": 0.5, "beta2": 0.95, "epsilon": 1e-3},
    "Ftrl": {"lamda1": 0.02, "beta": 0.8},
    "GroupAdaGrad": {"eps": 1e-3},
    "LAMB": {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3, "lower_bound": 0.1, "upper_bound": 9.0},
    "LANS": {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3, "lower_bound": 0.1, "upper_bound": 9.0},
    "LARS": {"momentum": 0.7, "eta": 0.02, "eps": 1e-3},
    "LBSGD": {"momentum": 0.7, "batch_scale": 2, "warmup_epochs": 1, "updates_per_epoch": 4},
    "Lion": {"beta1": 0.8, "beta2": 0.95},
    "Muon": {"momentum": 0.7, "a": 3.0, "b": -3.2, "c": 1.2, "epsilon": 1e-3, "steps": 3},
    "NAG": {"momentum": 0.7},
    "Nadam": {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3, "schedule_decay": 0.01},
    "RAdam": {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3},
    "RMSProp": {"gamma1": 0.8, "gamma2": 0.7, "epsilon": 1e-3, "centered": True},
    "SGD": {"momentum": 0.7},
    "SGLD": {"seed": 3},
    "ScheduleFreeAdamW": {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3, "warmup_steps": 2.5},
    "ScheduleFreeSGD": {"momentum": 0.8, "warmup_steps": 2.5, "r": 0.5, "weight_lr_power": 1.0},
    # A basis is arbitrary where several directions see no gradient: no side longer than 3.
    "SOAP": {
        "beta1": 0.8,
        "beta2": 0.95,
        "epsilon": 1e-3,
        "precondition_frequency": 2,
        "max_precondition_dim": 3,
    },
    "Signum": {"momentum": 0.7, "wd_lh": 0.01},
    "Test": {},
    "ccSGD": {"momentum": 0.7},
}
# The norms of the whole weight are part of these, as it is stored.
OF_THE_WHOLE = ("LAMB", "LANS", "LARS", "LBSGD")


def double_precision() -> Any:
    """A context in which JAX has 64-bit types."""
    enable = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    return enable(True)


def make(cls: type[mxopt.OptimizerDef], **changes: Any) -> mxopt.OptimizerDef:
    """A definition with every number off its default; `changes` come last."""
    decay = {} if cls.__name__ == "GroupAdaGrad" else {"wd": 0.03}
    common = {"learning_rate": 0.05, "rescale_grad": 0.9, "clip_gradient": 0.8, **decay}
    if "lr_scheduler" in changes:
        del common["learning_rate"]
    return cls(**{**common, **OWN.get(cls.__name__, {}), **changes})


def tree(seed: int = 0, dtype: Any = np.float32) -> dict[str, Any]:
    """Three weights: `a` and `b` share a shape, `c` stands alone; matrices, for GroupAdaGrad."""
    draw = np.random.default_rng(seed)
    shapes = {"a": (3, 2), "b": (3, 2), "c": (2, 4)}
    return {
        key: jnp.asarray(np.asarray(draw.normal(size=shape), dtype), dtype)
        for key, shape in shapes.items()
    }


def run(opt: mxopt.OptimizerDef, steps: int = 3, dtype: Any = np.float32) -> tuple[Any, Any]:
    """Weights and state after some steps from `tree()`."""
    params = tree(0, dtype)
    state = opt.init(params)
    for seed in range(1, steps + 1):
        params, state = opt.step(params, tree(seed, dtype), state)
    return params, state


def scanned(opt: mxopt.OptimizerDef, steps: int = 3, dtype: Any = np.float32) -> tuple[Any, Any]:
    """What `run` gives, as one program with a single step in it."""
    params = tree(0, dtype)
    grads = jax.tree.map(lambda *g: jnp.stack(g), *(tree(1 + seed, dtype) for seed in range(steps)))

    def body(carry: Any, grads: Any) -> tuple[Any, None]:
        params, state = carry
        return opt.step(params, grads, state), None

    return jax.lax.scan(body, (params, opt.init(params)), grads)[0]


def is_real(leaf: Any) -> bool:
    """Whether a leaf holds real numbers, not counts or keys."""
    return jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)


def assert_same(actual: Any, expected: Any) -> None:
    """Equal trees, structure, dtypes and bits."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(_bits(a), _bits(b))


def assert_near(actual: Any, expected: Any, ulps: float = 2) -> None:
    """Equal trees up to units of rounding, relative to the element and a tenth of the largest."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if not is_real(a):
            np.testing.assert_array_equal(_bits(a), _bits(b))
            continue
        unit = float(jnp.finfo(a.dtype).eps)
        x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
        scale = np.abs(y) + 0.1 * np.max(np.abs(y), initial=0.0)
        np.testing.assert_array_less(np.abs(x - y), ulps * unit * scale + 1e-45)


def distance(actual: Any, expected: Any, unit: float) -> float:
    """The largest difference, in units of the largest element that is expected.

    Infinity where shapes differ, or NaN and infinities stand in other places.
    """
    x, y = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    finite = np.isfinite(y)
    if x.shape != y.shape or not np.array_equal(x[~finite], y[~finite], equal_nan=True):
        return np.inf
    if not np.isfinite(x[finite]).all():
        return np.inf
    scale = np.max(np.abs(y[finite]), initial=0) or 1
    return float(np.max(np.abs(x[finite] - y[finite]), initial=0) / scale / unit)


def _bits(array: Any) -> Any:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.asarray(array)
