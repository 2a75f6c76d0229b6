"""The definitions follow the recorded trajectories of MXNet."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from trajectories import FILES, Trajectory, cases

UNITS = 64

# What some need instead of `UNITS`, and why.
LARGER = {
    # MXNet sums squares that it has rounded to float16, which puts its norms off by up to
    # a float16's rounding; those here are of the same float16 weights, but summed in float32.
    ("LARS", "master"): 2**-10 / np.finfo(np.float32).eps,
    ("LAMB", "master"): 2**-10 / np.finfo(np.float32).eps,
}


def by_update(trajectory: Trajectory) -> Iterator[list[Any]]:
    """Weights and states after each step, weight by weight."""
    opt = trajectory.definition()
    weights = [jnp.asarray(weight) for weight in trajectory.weights()]
    states = [opt.create_state_multi_precision(k, weight) for k, weight in enumerate(weights)]
    for step in range(trajectory.case["steps"]):
        grads = trajectory.grads(step)
        for k, parts in enumerate(zip(weights, grads, states, strict=True)):
            weights[k], states[k] = opt.update(k, *parts)
        yield list(zip(weights, states, strict=True))


def by_step(trajectory: Trajectory) -> Iterator[list[Any]]:
    """Weights and states after each step, as a tree."""
    opt = trajectory.definition(lambda index: f"w{index}")
    params = {f"w{k}": jnp.asarray(weight) for k, weight in enumerate(trajectory.weights())}
    state = opt.init(params)
    for step in range(trajectory.case["steps"]):
        grads = dict(zip(params, trajectory.grads(step), strict=True))
        params, state = opt.step(params, grads, state)
        unpacked = state.unpack(params)
        yield [(params[name], unpacked[name]) for name in params]


@pytest.mark.parametrize("replay", [by_update, by_step])
@pytest.mark.parametrize("trajectory", cases(*(name for name in FILES if name != "sgld")))
def test_follows_mxnet(trajectory: Trajectory, replay: Any) -> None:
    expected = [trajectory.expected(k) for k in trajectory.case["indices"]]
    for step, weights in enumerate(replay(trajectory)):
        for k, (weight, state) in enumerate(weights):
            assert set(expected[k]) == _names(state)
            for name, values in expected[k].items():
                actual = weight if not name else _part(state, name)
                units = _units(trajectory.case["class"], state)
                off = distance(actual, values[step])
                assert off <= units, f"weight {k}, step {step}, {name or 'weight'}: {off:.1f} units"


def _names(state: Any) -> set[str]:
    kept = {name for name in getattr(state.slots, "_fields", ()) if _part(state, name) is not None}
    return {"", *kept, *(["master"] if state.master is not None else [])}


def _part(state: Any, name: str) -> Any:
    return state.master if name == "master" else getattr(state.slots, name)


def _units(algorithm: str, state: Any) -> float:
    return LARGER.get((algorithm, state.master is not None), UNITS)


def distance(actual: Any, expected: np.ndarray) -> float:
    """How far two arrays are apart, in units.

    A unit is float32's rounding of the element plus a tenth of the largest. Weights of float16
    beside masters within a few of these may be rounded to neighbours; any further, and it shows.
    """
    actual = np.asarray(actual)
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    x, y = actual.astype(np.float64), expected.astype(np.float64)
    scale = np.abs(y) + 0.1 * np.max(np.abs(y), initial=0)
    apart = np.abs(x - y)
    if actual.dtype == np.float16:
        apart = np.maximum(apart - np.spacing(np.abs(expected)), 0)
    off = apart / np.where(scale > 0, scale, 1) / np.finfo(np.float32).eps
    return float(np.max(off, initial=0))
