"""The Updater follows MXNet's, through every recorded trajectory and in its bookkeeping."""

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from following import assert_follows
from samples import assert_same
from stateful_replay import expected_numbers, numbers, replay, same_numbers
from trajectories import FILES, Trajectory, some_cases

import jaxmxopt as mxopt
from jaxmxopt import lr_scheduler
from jaxmxopt._mxnet.slots import nested, slots_of


# The others too replay through the Updater, counts and rates included: in test_same_bits.
@pytest.mark.parametrize("trajectory", some_cases(3, *(name for name in FILES if name != "sgld")))
def test_follows_mxnet(trajectory: Trajectory) -> None:
    assert_follows(trajectory, checked_steps(trajectory))


@pytest.mark.parametrize("trajectory", some_cases(1, "sgld"))
def test_counts_and_rates_follow_mxnet_where_weights_are_noisy(trajectory: Trajectory) -> None:
    assert len(list(checked_steps(trajectory))) == trajectory.case["steps"]


def checked_steps(trajectory: Trajectory) -> Iterator[list[Any]]:
    """Weights and states after each step, whose counts and rates equal MXNet's exactly."""
    indices = list(trajectory.case["indices"])
    for number, step in enumerate(replay(trajectory)):
        assert same_numbers(trajectory, number, step.optimizer), (
            numbers(step.optimizer, indices),
            expected_numbers(trajectory, number),
        )
        yield [step.pair(k) for k in indices]


ONES = np.ones(3, np.float32)


def test_takes_names_and_definitions_and_optimizers() -> None:
    opt = mxopt.create("sgd", learning_rate=0.5)
    for given in ("SGD", mxopt.SGD(learning_rate=0.5), opt):
        updater = mxopt.get_updater(given)
        rate = updater.optimizer.learning_rate
        np.testing.assert_allclose(updater(0, ONES, ONES), 1 - rate)
    assert mxopt.Updater(opt).optimizer is opt


def test_makes_states_on_first_use_and_keeps_them_by_index() -> None:
    updater = mxopt.get_updater(mxopt.Adam(multi_precision=True))
    assert updater.states == {}
    updater("a", ONES, ONES)
    updater(b"b", ONES.astype(np.float16), ONES.astype(np.float16))
    mean, var = updater.states["a"]
    assert mean.shape == var.shape == (3,)
    master, (mean, var) = updater.states["b"]
    assert master.dtype == mean.dtype == jnp.float32


def test_lists_equal_single_calls() -> None:
    def run(lists: bool) -> Any:
        updater = mxopt.get_updater(mxopt.Adam(learning_rate=0.1, lr_mult={1: 0.5}))
        weights = [jnp.full((k + 2,), 1.0) for k in range(4)]
        grads = [jnp.full((k + 2,), 0.5) for k in range(4)]
        for _ in range(3):
            if lists:
                weights = updater(list(range(4)), grads, weights)
            else:
                weights = [updater(k, grads[k], weights[k]) for k in range(4)]
        return weights, updater.states, dict(updater.optimizer._index_update_count)

    singly, together = run(False), run(True)
    for a, b in zip(jax.tree.leaves(singly), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert mxopt.get_updater("sgd")([], [], []) == []


def test_counts_are_kept_for_each_device() -> None:
    opt = mxopt.create("sgd", begin_num_update=10)
    updaters = [mxopt.get_updater(opt) for _ in range(2)]
    devices = jax.devices()[:2]
    weights = [jax.device_put(ONES, device) for device in devices]
    for which, index in ((0, 0), (0, 0), (1, 0), (1, 1)):
        new = updaters[which](index, weights[which], weights[which])
        assert new.devices() == {devices[which]}
    assert opt._all_index_update_counts == {0: {0: 12}, 1: {0: 11, 1: 11}}
    assert opt._index_update_count is opt._all_index_update_counts[1]
    assert opt.num_update == 12


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ((0, ONES[:2], ONES), ValueError, r"SGD.update\(0\): grad has shape"),
        ((0, None, ONES), TypeError, r"SGD.update\(0\): grad must be an array"),
        (([0, 1], [ONES], [ONES, ONES]), ValueError, "grad must be a list of 2"),
        (([0, 0], [ONES, ONES], [ONES, ONES]), ValueError, "given once, got 0"),
        (([0, "b"], [ONES, ONES[:1]], [ONES, ONES]), ValueError, r"update\('b'\): grad has"),
        (({}, ONES, ONES), TypeError, "index must be hashable"),
        ((0, ONES, np.ones(3, int)), TypeError, "real floating dtype"),
    ],
)
def test_refuses_what_does_not_fit_and_changes_nothing(
    call: Any, error: type[Exception], message: str
) -> None:
    updater = mxopt.get_updater(mxopt.create("sgd", momentum=0.9))
    with pytest.raises(error, match=message):
        updater(*call)
    assert updater.optimizer.num_update == 0
    assert updater.optimizer._index_update_count == {}
    assert updater.states == {}


@pytest.mark.parametrize(
    "inside",
    [
        lambda w: mxopt.get_updater("sgd")(0, w, w),
        lambda w: mxopt.get_updater("sgd")(0, w, ONES),
        lambda w: mxopt.get_updater("sgd")([0], [w], [w]),
        lambda w: mxopt.create("sgd").update(0, ONES, w, ()),
        lambda w: mxopt.create("sgd").update([0], [w], [w], [()]),
        lambda w: mxopt.Optimizer(mxopt.EMA(mxopt.SGD())).update(0, w, w, None),
        lambda w: mxopt.Trainer({"w": w}, "sgd").step({"w": w}, 1),
    ],
)
def test_counting_on_the_host_is_not_for_jit(inside: Any) -> None:
    with pytest.raises(TypeError, match=r"got a tracer.* on the host.*definition"):
        jax.jit(inside)(ONES)


@pytest.mark.parametrize("optimizer", ["adam", mxopt.EMA(mxopt.SGD()), mxopt.Test()])
@pytest.mark.parametrize("given", [True, False], ids=["gradients", "nothing"])
def test_nothing_has_changed_where_a_call_was_traced(optimizer: Any, given: bool) -> None:
    grads = {"a": jnp.ones(3), "b": jnp.ones(2)}
    trainer = mxopt.Trainer(grads, optimizer)
    updater = mxopt.get_updater(optimizer)
    trainer.step(grads, 1)
    updater([0, 1], list(grads.values()), list(grads.values()))
    before = copy.deepcopy((trainer.params, trainer.states, updater.states))

    def step(tree: Any) -> Any:
        return trainer.step(tree if given else grads, 1)

    def update(tree: Any) -> Any:
        tree = tree if given else grads
        return updater([0, 1], list(tree.values()), list(grads.values()))

    for call in (step, update):
        with pytest.raises(TypeError, match="got a tracer"):
            jax.jit(call)(grads)
    assert_same((trainer.params, trainer.states, updater.states), before)
    assert trainer.optimizer.num_update == updater.optimizer.num_update == 1
    trainer.step(grads, 1)


def test_multipliers_may_be_arrays() -> None:
    class Halved(mxopt.optimizer.SGD):
        def _get_lrs(self, indices: Any) -> Any:
            return [jnp.float32(lr) / 2 for lr in super()._get_lrs(indices)]

    for kind in (mxopt.optimizer.SGD, Halved):
        plain = mxopt.get_updater(kind(learning_rate=0.25))
        plain.optimizer.set_lr_mult({0: 2.0})
        arrays = mxopt.get_updater(kind(learning_rate=0.25))
        arrays.optimizer.set_lr_mult({0: jnp.float32(2.0)})
        given = [0, 1], [ONES, ONES], [ONES, ONES]
        assert_same(plain(*given), arrays(*given))


def test_an_array_that_is_dead_is_named() -> None:
    dead = jnp.ones(3)
    dead.delete()
    updater = mxopt.get_updater("sgd")
    message = r"SGD.update\({}\): grad must be alive"
    with pytest.raises(ValueError, match=message.format(7)):
        updater(7, dead, ONES)
    with pytest.raises(ValueError, match=message.format("'b'")):
        updater([7, "b"], [ONES, dead], [ONES, ONES])
    assert updater.optimizer.num_update == 0


def test_a_list_without_a_gradient_is_refused() -> None:
    updater = mxopt.get_updater("sgd")
    with pytest.raises(TypeError, match=r"SGD.update\(1\): grad must be an array, got NoneType"):
        updater([0, 1], [ONES, None], [ONES, ONES])
    assert (updater.states, updater.optimizer.num_update) == ({}, 0)


def test_pickles_and_copies_and_goes_on() -> None:
    schedule = lr_scheduler.FactorScheduler(step=2, factor=0.5, base_lr=0.1)
    updater = mxopt.get_updater(mxopt.create("adam", lr_scheduler=schedule))
    weight = updater(0, ONES, ONES)
    others = [pickle.loads(pickle.dumps(updater)), copy.deepcopy(updater)]
    expected = updater(0, ONES, weight)
    for other in others:
        assert_same(other(0, ONES, weight), expected)
        assert_same(other.states, updater.states)
        assert other.optimizer.num_update == 2
        assert other.optimizer._index_update_count is other.optimizer._all_index_update_counts[0]
    assert "Adam(" in repr(updater)
    assert "1 states" in repr(updater)


class OwnSGD(mxopt.SGD):
    """An algorithm that is SGD in all that counts."""


def test_a_subclass_counts_and_is_stored_as_its_base() -> None:
    schedule = lr_scheduler.FactorScheduler(step=1, factor=0.5, base_lr=0.5)
    ends: list[Any] = []
    for kind in (mxopt.SGD, OwnSGD):
        opt = kind(momentum=0.9, lr_scheduler=schedule, multi_precision=True)
        updater = mxopt.get_updater(opt)
        half = jnp.ones(3, jnp.float16)
        first = updater(1, half, half)
        weights = updater([0, 1], [half, half], [half, first])
        ends.append((weights, nested(opt, updater.states[0])))
        again = slots_of(opt, 0, ends[-1][1], 1, {}, half)
        assert_same(again, updater.states[0])
    assert_same(ends[1], ends[0])
