"""The recorded trajectories of MXNet through the stateful optimizers, driven as MXNet was."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from trajectories import Trajectory

import jaxmxopt as mxopt
from jaxmxopt import lr_scheduler
from jaxmxopt._stateful.mxnet_states import slots_and_master


class Step(NamedTuple):
    """What stands after one step."""

    optimizer: mxopt.Optimizer
    weights: list[Any]
    states: dict[Any, Any]

    def pair(self, k: int) -> tuple[Any, mxopt.State]:
        """Weight `k` and its state in the form that definitions have it."""
        count = self.optimizer._index_update_count.get(k, self.optimizer.begin_num_update)
        return self.weights[k], mxopt.State(jnp.int32(count), *slots_and_master(self.states[k]))

    def arrays(self, k: int) -> dict[str, Any]:
        """Weight `k`, its master and slots, named as in `Trajectory.expected`."""
        weight, state = self.pair(k)
        named = {"": weight, "master": state.master}
        named |= {name: getattr(state.slots, name) for name in getattr(state.slots, "_fields", ())}
        return {name: array for name, array in named.items() if array is not None}


def optimizer_of(trajectory: Trajectory) -> mxopt.Optimizer:
    """The optimizer that MXNet was asked for, made and set in the same way."""
    case = trajectory.case
    kwargs = dict(case["kwargs"])
    if case["lr_scheduler"] is not None:
        scheduler = getattr(lr_scheduler, case["lr_scheduler"]["class"])
        kwargs["lr_scheduler"] = scheduler(**case["lr_scheduler"]["kwargs"])
    if case["param_idx2name"] is not None:
        kwargs["param_idx2name"] = dict(case["param_idx2name"])
    optimizer = mxopt.create(case["class"], **kwargs)
    if case["lr_mult"]:
        optimizer.set_lr_mult(dict(case["lr_mult"]))
    if case["wd_mult"]:
        optimizer.set_wd_mult(dict(case["wd_mult"]))
    if trajectory.sparse and case["class"] == "Ftrl":
        # MXNet's own is lazy where the weight is stored row-sparse, and only there.
        optimizer.lazy_update = case["weight_stype"] == "row_sparse"
    return optimizer


def replay(trajectory: Trajectory) -> Iterator[Step]:
    """Runs the Updater weight by weight or with lists, as was recorded."""
    case = trajectory.case
    updater = mxopt.get_updater(optimizer_of(trajectory))
    weights: list[Any] = [jnp.asarray(weight) for weight in trajectory.weights()]
    indices = list(case["indices"])
    for step in range(case["steps"]):
        grads = trajectory.grads(step)
        if case["call"] == "list":
            weights = updater(indices, grads, weights)
        else:
            weights = [updater(k, grads[k], weights[k]) for k in indices]
        yield Step(updater.optimizer, weights, updater.states)


def numbers(optimizer: mxopt.Optimizer, indices: list[int]) -> dict[str, Any]:
    """Counts, rates and decays as recorded after each step."""
    counts, begin = optimizer._index_update_count, optimizer.begin_num_update
    return {
        "counts": [counts.get(index, begin) for index in indices],
        "num_update": optimizer.num_update,
        "lr": optimizer._get_lrs(indices),
        "wd": optimizer._get_wds(indices),
    }


def expected_numbers(trajectory: Trajectory, step: int) -> dict[str, Any]:
    """The same from the recording."""
    names = ("counts", "num_update", "lr", "wd")
    recorded = {name: np.asarray(trajectory.array(name))[step].tolist() for name in names}
    schedule = trajectory.case["lr_scheduler"]
    past_end = schedule and recorded["num_update"] > schedule["kwargs"].get("max_update", np.inf)
    if trajectory.case["class"] == "AdaDelta" and past_end:
        # It uses no rate, so MXNet never asked the scheduler, and one first asked past its end
        # gives the rate that it would have begun from, not the last one.
        asked = optimizer_of(trajectory)
        asked.lr_scheduler = lambda count: schedule["kwargs"].get("final_lr", 0.0)
        recorded["lr"] = asked._get_lrs(trajectory.case["indices"])
    return recorded


def same_numbers(trajectory: Trajectory, step: int, optimizer: mxopt.Optimizer) -> bool:
    """Whether counts, rates and decays are exactly those recorded."""
    mine = numbers(optimizer, list(trajectory.case["indices"]))
    return mine == expected_numbers(trajectory, step)
