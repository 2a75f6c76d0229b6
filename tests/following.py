"""How the tests compare a trajectory of ours with the recorded one."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from trajectories import Trajectory

UNITS = 64

# What some need instead, and why.
LARGER = {
    # MXNet computes the bias corrections from a beta2 in double precision. A definition has it
    # rounded to float32, which puts the rate of every step off by up to 7e-6 of itself.
    "Adam": 256,
    # The same for 1 - beta2 in the second moment: 1.3e-5 where beta2 is 0.999.
    "Nadam": 512,
    # Besides, MXNet writes the moments as beta * (m - g) + g, which cancels: what is left of a
    # small moment beside a large gradient depends on whether multiply and add are fused.
    "AdamW": 2048,
    "AdaBelief": 2048,
    # MXNet's kernel subtracts a power rounded to float32 from 1; ours is accurate.
    "FTML": 256,
}
# MXNet sums squares that it has rounded to float16: its norms are off by up to float16's rounding.
LARGER_IN_HALF = dict.fromkeys(("LARS", "LAMB"), 2.0**-10 / np.finfo(np.float32).eps)


def assert_follows(trajectory: Trajectory, steps: Iterable[list[Any]]) -> None:
    """Compares the weights and states after each step, as pairs, with the recorded ones."""
    expected = [trajectory.expected(k) for k in trajectory.case["indices"]]
    for step, weights in enumerate(steps):
        for k, (weight, state) in enumerate(weights):
            assert set(expected[k]) == _names(state)
            units = _units(trajectory.case["class"], state)
            for name, values in expected[k].items():
                actual = weight if not name else _part(state, name)
                off = distance(actual, values[step])
                assert off <= units, f"weight {k}, step {step}, {name or 'weight'}: {off:.1f} units"


def _names(state: Any) -> set[str]:
    kept = {name for name in getattr(state.slots, "_fields", ()) if _part(state, name) is not None}
    return {"", *kept, *(["master"] if state.master is not None else [])}


def _part(state: Any, name: str) -> Any:
    return state.master if name == "master" else getattr(state.slots, name)


def _units(algorithm: str, state: Any) -> float:
    if state.master is not None and algorithm in LARGER_IN_HALF:
        return LARGER_IN_HALF[algorithm]
    return LARGER.get(algorithm, UNITS)


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
