"""Definitions follow the recorded trajectories of MXNet, as whole trees through `step`."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from following import assert_follows
from trajectories import FILES, Trajectory, some_cases


@pytest.fixture(autouse=True)
def forget_programs(request: pytest.FixtureRequest) -> None:
    """Drops the programs of one file's cases before those of the next: no two cases share any."""
    if request.node.name.endswith(("-00]", "-01]", "-02]")):
        jax.clear_caches()


@pytest.mark.parametrize("trajectory", some_cases(3, *(name for name in FILES if name != "sgld")))
def test_follows_mxnet(trajectory: Trajectory) -> None:
    assert_follows(trajectory, by_step(trajectory))


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
