"""Every algorithm does what its docstring's formula says, in float64 and for every count."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import CATALOGUE, ROWS, Row

import jaxmxopt as mxopt
from jaxmxopt._algorithms._kernel_power import kernel_one_minus_power
from jaxmxopt._core.numeric import one_minus_power
from jaxmxopt.lr_scheduler import FactorScheduler

COMMON: tuple[dict[str, Any], ...] = (
    {},
    {"wd": 0.03, "clip_gradient": 0.6, "rescale_grad": 0.7},
)
STEPS = 6


def settings() -> list[Any]:
    """All rows with all their settings, with and without the common arguments."""
    return [
        pytest.param(row, {**own, **common}, id=f"{row.name}-{i}-{'common' if common else 'own'}")
        for row in CATALOGUE
        for i, own in enumerate(row.settings)
        for common in COMMON
    ]


def definition(row: Row, given: dict[str, Any]) -> Any:
    if not row.decays:
        given = {name: value for name, value in given.items() if name != "wd"}
    # The rate changes, for what looks at the one before.
    schedule = FactorScheduler(base_lr=0.1, step=2, factor=0.5)
    return row.cls(**given, lr_scheduler=schedule)


def hyperparameters(opt: Any, t: int) -> SimpleNamespace:
    lr = opt.lr_scheduler(t - opt.schedule_lag)
    return SimpleNamespace(**{name: getattr(opt, name) for name in opt._described}, lr=lr)


def by_name(slots: Any) -> dict[str, Any]:
    named = slots._asdict() if hasattr(slots, "_asdict") else {}
    return {name: None if slot is None else np.asarray(slot) for name, slot in named.items()}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("row", "given"), settings())
def test_is_its_formula(row: Row, given: dict[str, Any]) -> None:
    draw = np.random.default_rng(1)
    opt = definition(row, given)
    weight = jnp.asarray(draw.normal(size=(3, 4)))
    state = opt.create_state("w", weight)
    for t in range(1, STEPS + 1):
        # A tenth of the elements see no gradient.
        grad = draw.normal(size=weight.shape) * (draw.random(weight.shape) > 0.1)
        old = by_name(state.slots)
        expected, slots = row.twin(hyperparameters(opt, t), t, np.asarray(weight), grad, old)
        before = state.slots
        weight, state = opt.update("w", weight, jnp.asarray(grad), state)
        assert weight.dtype == np.float64
        if row.random:
            expected = expected + noise(before, weight.shape) * np.sqrt(opt.lr_scheduler(t))
            slots = {"key": np.asarray(state.slots.key)}
        np.testing.assert_allclose(weight, expected, rtol=1e-12, atol=1e-12)
        new = by_name(state.slots)
        assert new.keys() == slots.keys()
        for name in new:
            if new[name] is not None or slots[name] is not None:
                np.testing.assert_allclose(new[name], slots[name], rtol=1e-11, atol=1e-12)


def noise(slots: Any, shape: tuple[int, ...]) -> np.ndarray:
    """What SGLD draws next, to be multiplied by the root of its rate."""
    key = jax.random.split(jax.random.wrap_key_data(slots.key, impl="threefry2x32"))[1]
    return np.asarray(jax.random.normal(key, shape, jnp.float64))


def test_every_algorithm_has_a_row(cls: type) -> None:
    assert ROWS[cls.__name__].cls is cls


def test_a_row_has_all_own_arguments(cls: type[mxopt.OptimizerDef]) -> None:
    row = ROWS[cls.__name__]
    own = set(cls._described) - set(mxopt.OptimizerDef._described)
    assert own <= {name for given in row.settings for name in given}


def test_a_row_says_what_the_class_says(cls: Any) -> None:
    row = ROWS[cls.__name__]
    assert row.lazy == cls().lazy_update


COUNTS = (1, 10, 1000, 100_000, 10_000_000)


@pytest.mark.parametrize("t", COUNTS)
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.999, 0.9999999])
def test_bias_corrections_are_accurate(beta: float, t: int) -> None:
    # Exact for the number that the definition holds, which is rounded.
    rounded = float(np.float32(beta))
    exact = -np.expm1(t * np.log1p(rounded - 1)) if rounded else 1.0
    traced = jax.jit(one_minus_power)(np.float32(beta), np.int32(t))
    np.testing.assert_allclose(float(traced), exact, rtol=4 * np.finfo(np.float32).eps)
    on_host = one_minus_power(rounded, t)
    np.testing.assert_allclose(on_host, exact, rtol=1e-6 if t < 10**6 else 2e-7)


@pytest.mark.parametrize("t", COUNTS)
@pytest.mark.parametrize("beta", [0.0, 0.6, 0.9, 0.999])
def test_corrections_of_kernels_are_mxnets_on_the_host(beta: float, t: int) -> None:
    expected = np.float32(1) - np.float32(float(np.float32(beta)) ** t)
    assert np.float32(kernel_one_minus_power(beta, t)) == expected
    traced = jax.jit(kernel_one_minus_power)(np.float32(beta), np.int32(t))
    exact = 1 - float(np.float32(beta)) ** t
    np.testing.assert_allclose(float(traced), exact, rtol=4 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "AdaBelief", "LAMB", "LANS", "FTML", "Nadam"])
@pytest.mark.parametrize("t", COUNTS)
def test_an_update_at_a_late_count_is_its_formula(name: str, t: int) -> None:
    # At the first update beta2's correction is a difference of nearly equal numbers.
    row = ROWS[name]
    opt = row.cls(learning_rate=0.125, begin_num_update=t - 1)
    weight = jnp.asarray([0.5, -1.0, 2.0])
    grad = jnp.asarray([1.0, -0.25, 0.5])
    state = opt.create_state("w", weight)
    h = hyperparameters_in_float32(opt)
    expected, _ = row.twin(h, t, *(np.float64(x) for x in (weight, grad)), by_name(state.slots))
    new, _ = opt.update("w", weight, grad, state)
    # AdaBelief's variance is a difference of nearly equal numbers, as in MXNet.
    cancelled = 1 / (1 - h.beta2) * 2**-24 if name == "AdaBelief" else 0.0
    moved = float(np.max(np.abs(expected - weight)))
    np.testing.assert_allclose(new, expected, rtol=4e-7, atol=2e-7 + cancelled * moved)


def hyperparameters_in_float32(opt: Any) -> SimpleNamespace:
    given = {name: getattr(opt, name) for name in opt._described}
    rounded = {
        name: float(np.float32(value)) if isinstance(value, float) else value
        for name, value in given.items()
    }
    return SimpleNamespace(**rounded, lr=rounded["learning_rate"])
