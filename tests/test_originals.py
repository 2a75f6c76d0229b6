"""The algorithms of today follow their authors' code, recorded by `reference/originals.py`."""

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from following import UNITS, distance
from samples import ALGORITHMS, OF_MXNET

import jaxmxopt as mxopt

# `make test-torch` replays what it has just recorded.
FRESH = os.environ.get("JAXMXOPT_ORIGINALS")
DATA = Path(FRESH or Path(__file__).parent / "reference" / "originals")
FILES = sorted(path.stem for path in DATA.glob("*.npz"))
# What some need instead of 64 units of rounding, and why.
LARGER: Mapping[str, float] = {}


@functools.cache
def arrays_of(file: str) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    with np.load(DATA / f"{file}.npz") as stored:
        arrays = dict(stored)
    return json.loads(str(arrays.pop("meta"))), arrays


def cases(file: str) -> list[dict[str, Any]]:
    return arrays_of(file)[0]


def stacked(file: str, case: str, kind: str) -> dict[str, np.ndarray]:
    """Weights or gradients of all steps, by name."""
    before = f"{case}/{kind}/"
    found = arrays_of(file)[1]
    return {key.removeprefix(before): found[key] for key in found if key.startswith(before)}


@jax.jit
def trained(opt: Any, params: Any, grads: Any, rates: Any) -> tuple[Any, Any]:
    """The last state, and the weights after every step with a rate of its own."""

    def step(carry: Any, given: Any) -> Any:
        grad, rate = given
        carry = opt.replace(learning_rate=rate).step(carry[0], grad, carry[1])
        return carry, carry[0]

    (_, state), weights = jax.lax.scan(step, (params, opt.init(params)), (grads, rates))
    return state, weights


@pytest.mark.usefixtures("compiled_quickly")
@pytest.mark.parametrize("file", FILES)
def test_follows_the_original(file: str) -> None:
    """One test a file, so that cases of one structure share a compiled program."""
    off: dict[str, float] = {}
    for case in cases(file):
        opt = getattr(mxopt, case["class"])(
            wd=case["wd"],
            lr_mult=case["lr_mult"] or None,
            wd_mult=case["wd_mult"] or None,
            **case["kwargs"],
        )
        recorded = stacked(file, case["id"], "weight")
        first = {name: jnp.asarray(w[0]) for name, w in recorded.items()}
        grads = stacked(file, case["id"], "grad")
        _, weights = trained(opt, first, grads, np.float32(case["rates"]))
        for name, expected in recorded.items():
            for step, wanted in enumerate(expected[1:]):
                far = distance(weights[name][step], wanted)
                off[case["id"]] = max(off.get(case["id"], 0), far)
    assert len(off) == 12
    allowed = LARGER.get(file, UNITS)
    assert {case: units for case, units in off.items() if not units <= allowed} == {}


def test_every_algorithm_of_today_is_recorded() -> None:
    recorded = {case["class"] for file in FILES for case in cases(file)}
    assert {kind.__name__ for kind in ALGORITHMS if kind not in OF_MXNET} <= recorded
