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
LARGER: Mapping[str, float] = {
    # The estimate is a quotient of sums whose terms cancel, which are added in another order; it
    # multiplies the next steps, and they the next estimate.
    "prodigy": 4096,
}


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


def definition(case: Mapping[str, Any]) -> Any:
    """Our definition of a case."""
    own = dict(case["kwargs"])
    common = {"wd": case["wd"], "lr_mult": case["lr_mult"], "wd_mult": case["wd_mult"]}
    if case["inside"] is None:
        return getattr(mxopt, case["class"])(**common, **own)
    inside = getattr(mxopt, case["inside"])(**common, **own.pop("inside"))
    return getattr(mxopt, case["class"])(inside, **own)


def apart(actual: Mapping[str, Any], expected: Mapping[str, np.ndarray]) -> float:
    """The largest distance between weights, in units of what each of them has been on its way.

    A number that passes by zero has been rounded as what it was before.
    """
    return max(distance(actual[name], expected[name]) for name in expected)


@pytest.mark.usefixtures("compiled_quickly")
@pytest.mark.parametrize("file", FILES)
def test_follows_the_original(file: str) -> None:
    """One test a file, so that cases of one structure share a compiled program."""
    off: dict[str, float] = {}
    for case in cases(file):
        recorded = stacked(file, case["id"], "weight")
        first = {name: jnp.asarray(w[0]) for name, w in recorded.items()}
        grads = stacked(file, case["id"], "grad")
        state, weights = trained(definition(case), first, grads, np.float32(case["rates"]))
        off[case["id"]] = apart(weights, {name: w[1:] for name, w in recorded.items()})
        settled = stacked(file, case["id"], "averaged")
        if settled:
            read = mxopt.averaged({name: w[-1] for name, w in weights.items()}, state)
            read = {name: w[None] for name, w in read.items()}
            off[f"{case['id']}, averaged"] = apart(read, settled)
    assert len(cases(file)) == 12
    allowed = LARGER.get(file, UNITS)
    assert {case: units for case, units in off.items() if not units <= allowed} == {}


def test_every_algorithm_of_today_is_recorded() -> None:
    recorded = {case["class"] for file in FILES for case in cases(file)}
    today = {kind.__name__ for kind in ALGORITHMS if kind not in OF_MXNET}
    assert today | {"Cautious", "Prodigy"} <= recorded
