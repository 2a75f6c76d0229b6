"""States in MXNet's own form, without names, are taken wherever a stateful optimizer takes one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import assert_same

import jaxmxopt as mxopt
from jaxmxopt import optimizer as mxo
from jaxmxopt._core.state import MasterState

ONES = jnp.ones(3)
HALF = jnp.ones(3, jnp.float16)
OTHER = jnp.full(3, 0.5)


@pytest.mark.parametrize(
    ("opt", "plain", "named"),
    [
        (mxo.SGD(), None, ()),
        (mxo.SGD(momentum=0.5), OTHER, (OTHER,)),
        (mxo.NAG(momentum=0.5), (OTHER,), (OTHER,)),
        (mxo.Adam(), (ONES, OTHER), (ONES, OTHER)),
        (mxo.Adam(), [ONES, OTHER], (ONES, OTHER)),
        (mxo.AdaGrad(), np.asarray(OTHER), (OTHER,)),
        (mxo.RMSProp(centered=True), (ONES, OTHER, ONES), (ONES, OTHER, ONES)),
    ],
)
def test_a_plain_state_is_that_of_the_slots(opt: Any, plain: Any, named: Any) -> None:
    given = type(opt.create_state(0, ONES))
    expected = opt.update(0, ONES, ONES, given(*named) if named else given())
    updaters = [mxopt.get_updater(opt.definition) for _ in range(2)]
    for updater in updaters:
        updater.states[0] = plain
    found = [
        mxopt.Optimizer(opt.definition).update(0, ONES, ONES, plain),
        (updaters[0](0, ONES, ONES), updaters[0].states[0]),
        (updaters[1]([0], [ONES], [ONES])[0], updaters[1].states[0]),
    ]
    for weight, state in found:
        assert type(state) is type(expected[1])
        assert_same((weight, state), expected)


@pytest.mark.parametrize(
    ("opt", "plain", "slots"),
    [
        (mxo.SGD(multi_precision=True), (ONES, None), ()),
        (mxo.SGD(multi_precision=True), (None, ONES), ()),
        (mxo.SGD(momentum=0.5, multi_precision=True), (ONES, OTHER), (OTHER,)),
        (mxo.SGD(momentum=0.5, multi_precision=True), (OTHER, ONES), (OTHER,)),
        (mxo.SGD(momentum=0.5, multi_precision=True), (ONES, (OTHER,)), (OTHER,)),
        (mxo.Signum(momentum=0.5, multi_precision=True), (ONES, OTHER), (OTHER,)),
        (mxo.Adam(multi_precision=True), (ONES, (ONES, OTHER)), (ONES, OTHER)),
        (mxo.Adam(multi_precision=True), MasterState(ONES, [ONES, OTHER]), (ONES, OTHER)),
    ],
)
def test_a_plain_state_with_a_master(opt: Any, plain: Any, slots: Any) -> None:
    named = opt.create_state_multi_precision(0, HALF)
    named = named._replace(slots=type(named.slots)(*slots) if slots else ())
    expected = opt.update(0, HALF, HALF, named)
    opt = mxopt.Optimizer(opt.definition)
    found = opt.update(0, HALF, HALF, plain)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert_same(found, expected)


class OwnStates(mxo.Adam):
    def create_state(self, index: Any, weight: Any) -> Any:
        return (jnp.zeros_like(weight), jnp.zeros_like(weight))


@pytest.mark.parametrize("weight", [ONES, HALF], ids=["float32", "float16"])
def test_an_overridden_create_state_may_return_a_plain_tuple(weight: Any) -> None:
    own, ours = ({"multi_precision": True, "learning_rate": 0.25} for _ in range(2))
    found, expected = (
        mxopt.Trainer({"w": weight}, opt) for opt in (OwnStates(**own), mxo.Adam(**ours))
    )
    for _ in range(2):
        assert_same(found.step({"w": weight}, 1), expected.step({"w": weight}, 1))
    assert jax.tree.structure(found.states) == jax.tree.structure(expected.states)


@pytest.mark.parametrize(
    ("opt", "state", "message"),
    [
        (mxo.Adam(), ONES, "it must be mean and var, got an array"),
        (mxo.Adam(), (ONES,), "it must be mean and var, got"),
        (mxo.Adam(), {"mean": ONES}, "it must be mean and var, got"),
        (mxo.Adam(), None, "mean must be an array"),
        (mxo.Adam(), (ONES, ONES[:1]), r"var must have shape \(3,\)"),
        (mxo.SGD(), ONES, "it must be None, as momentum is 0"),
        (mxo.SGD(momentum=0.5), (ONES, ONES), "it must be mom, got"),
    ],
)
def test_a_wrong_state_names_the_slots(opt: Any, state: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"{type(opt).__name__}.update\(0\): .*{message}"):
        opt.update(0, ONES, ONES, state)
    assert opt.num_update == 0


class Sum(mxopt.OptimizerDef):
    """Its slots are a plain tuple."""

    def slots(self, like: Any) -> Any:
        return (like.zeros(),)

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        total = slots[0] + grad
        return weight - rates.lr * total, (total,)


def test_plain_tuples_of_an_algorithm_are_its_own() -> None:
    updater, trainer = mxopt.get_updater(Sum()), mxopt.Trainer({"w": jnp.ones(2)}, Sum())
    weight, ones = jnp.ones(2), jnp.ones(2)
    for _ in range(2):
        weight, params = updater(0, ones, weight), trainer.step({"w": ones}, 1)
    np.testing.assert_allclose(weight, 0.97, rtol=1e-6)
    np.testing.assert_array_equal(params["w"], weight)


def test_two_slots_beside_a_weight_of_zeros_are_no_master() -> None:
    opt, weight = mxo.Adam(multi_precision=False), jnp.zeros(3, jnp.float16)
    mean, var = jnp.zeros(3), jnp.ones(3)
    _, state = opt.update(0, weight, jnp.ones(3, jnp.float16), (mean, var))
    assert type(state).__name__ == "AdamSlots"
