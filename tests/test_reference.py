"""Definitions follow the recorded trajectories of MXNet, weight by weight through `update`."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import CATALOGUE
from following import UNITS, assert_follows, distance
from trajectories import FILES, Trajectory, cases

# Fully optimized they are replayed as trees, and by the stateful layer to the bit.
pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(autouse=True)
def forget_programs(request: pytest.FixtureRequest) -> None:
    """Drops the programs of one file's cases before those of the next: no two cases share any."""
    if request.node.name.endswith("-00]"):
        jax.clear_caches()


@pytest.mark.parametrize("trajectory", cases(*(name for name in FILES if name != "sgld")))
def test_follows_mxnet(trajectory: Trajectory) -> None:
    assert_follows(trajectory, by_update(trajectory))


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


@pytest.mark.parametrize("trajectory", cases("sgld"))
def test_follows_mxnet_but_for_the_noise(trajectory: Trajectory) -> None:
    """Each step starts where MXNet was, and MXNet's noise is exchanged for ours."""
    opt = trajectory.definition()
    for k, weight in enumerate(trajectory.weights()):
        expected = trajectory.expected(k)
        state = opt.create_state_multi_precision(k, jnp.asarray(weight))
        for step in range(trajectory.case["steps"]):
            count = trajectory.array("counts")[step, k] - 1
            state = state._replace(num_update=jnp.asarray(count, jnp.int32))
            lr = trajectory.array("lr")[step, k]
            ours = np.sqrt(lr) * next_noise(state.slots, weight.shape)
            grad = trajectory.grads(step)[k]
            new, state = opt.update(k, jnp.asarray(weight), jnp.asarray(grad), state)
            moved = new if state.master is None else state.master
            weight = expected[""][step]
            reached = expected.get("master", expected[""])[step]
            wanted = reached - trajectory.array(f"noise/{k}")[step] + ours
            assert distance(moved, np.float32(wanted)) <= UNITS
            if state.master is not None:
                state = state._replace(master=jnp.asarray(reached))


def next_noise(slots: Any, shape: tuple[int, ...]) -> np.ndarray:
    """What SGLD draws next, to be multiplied by the root of its rate."""
    key = jax.random.split(jax.random.wrap_key_data(slots.key, impl="threefry2x32"))[1]
    return np.asarray(jax.random.normal(key, shape))


def test_all_files_are_replayed() -> None:
    assert sorted(name for row in CATALOGUE for name in row.files) == FILES
