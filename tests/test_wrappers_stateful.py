"""Wrappers and optax in MXNet's stateful layer."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from samples import assert_near, tree

import jaxmxopt as mxopt
from jaxmxopt.interop import from_optax
from jaxmxopt.lr_scheduler import FactorScheduler

DEFINITIONS = {
    "Accumulate": lambda: mxopt.Accumulate(mxopt.Adam(), every=2),
    "ClipGlobalNorm": lambda: mxopt.ClipGlobalNorm(mxopt.Adam(), max_norm=0.5),
    "EMA": lambda: mxopt.EMA(mxopt.Adam()),
    "Groups": lambda: mxopt.Groups({"a": mxopt.Adam(), "*": mxopt.SGD(momentum=0.9)}),
    "from_optax": lambda: from_optax(optax.sgd(1e-2, momentum=0.9)),
    "nested": lambda: mxopt.EMA(mxopt.ClipGlobalNorm(mxopt.Adam(), max_norm=0.5)),
}
ANY = pytest.mark.parametrize("name", DEFINITIONS)


def pure(opt, steps=4):
    params = tree(0)
    state = opt.init(params)
    for seed in range(1, steps + 1):
        params, state = opt.step(params, tree(seed), state)
    return params, state


@ANY
def test_trainer(name):
    trainer = mxopt.Trainer(tree(0), DEFINITIONS[name]())
    for seed in range(1, 5):
        trainer.step(jax.tree.map(lambda g: 8 * g, tree(seed)), batch_size=8)
    assert_near(trainer.params, pure(DEFINITIONS[name]())[0], 8)
    assert trainer.optimizer.num_update == (2 if name == "Accumulate" else 4)


@ANY
def test_updater_takes_a_list(name):
    updater, keys = mxopt.get_updater(DEFINITIONS[name]()), list("abc")
    params = tree(0)
    for seed in range(1, 5):
        new = updater(keys, [tree(seed)[k] for k in keys], [params[k] for k in keys])
        params = dict(zip(keys, new, strict=True))
    assert_near(params, pure(DEFINITIONS[name]())[0], 8)


@ANY
def test_states_go_through_bytes(name):
    updaters = [mxopt.get_updater(DEFINITIONS[name]()) for _ in range(2)]
    w, g = tree(0)["a"], tree(1)["a"]
    for _ in range(3):
        w = updaters[0]("a", g, w)
    updaters[1].set_states(updaters[0].get_states())
    assert_near(updaters[1]("a", g, w), updaters[0]("a", g, w))
    assert updaters[1].optimizer.num_update == updaters[0].optimizer.num_update


def test_hyperparameters_read_as_those_inside_and_write_to_all():
    optimizer = mxopt.create(DEFINITIONS["Groups"](), rescale_grad=0.5)
    assert optimizer.rescale_grad == 0.5
    assert optimizer.learning_rate == 0.001
    optimizer.set_learning_rate(0.2)
    assert {opt.learning_rate for opt in optimizer.definition.groups.values()} == {0.2}
    assert pickle.loads(pickle.dumps(optimizer)).definition == optimizer.definition


def test_a_schedule_goes_by_updates():
    schedule = FactorScheduler(step=1, factor=0.5, base_lr=0.1)
    opt = mxopt.Accumulate(mxopt.SGD(lr_scheduler=schedule), every=2)
    trainer = mxopt.Trainer(tree(0), opt)
    for seed in range(1, 5):
        trainer.step(tree(seed), batch_size=1)
    assert trainer.learning_rate == schedule(2)
    assert_near(trainer.params, pure(opt)[0], 8)


def test_multipliers_by_number():
    optimizer = mxopt.create(mxopt.EMA(mxopt.SGD(learning_rate=1.0)))
    optimizer.set_lr_mult({1: 0.5})
    updater, w = mxopt.get_updater(optimizer), jnp.zeros(2)
    one, half = updater([0, 1], [jnp.ones(2)] * 2, [w, w])
    np.testing.assert_allclose([one[0], half[0]], [-1.0, -0.5])


def test_weights_that_come_later_count_for_themselves():
    updater, w = mxopt.get_updater(mxopt.EMA(mxopt.Adam())), jnp.ones(2)
    updater(0, w, w)
    updater([0, 1], [w, w], [w, w])
    assert [int(updater.states[i].num_update) for i in (0, 1)] == [2, 1]


def test_averages_are_read_from_the_updater():
    updater, w = mxopt.get_updater(mxopt.EMA(mxopt.SGD(learning_rate=1.0), decay=0.5)), jnp.ones(2)
    w = updater("w", jnp.ones(2), w)
    np.testing.assert_allclose(mxopt.averaged(w, updater.states["w"]), [0.0, 0.0])
