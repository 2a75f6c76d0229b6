"""Wrappers and optax in MXNet's stateful layer."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from samples import assert_near, assert_same, tree

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


@pytest.mark.parametrize("name", [name for name in DEFINITIONS if name != "from_optax"])
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


# What looks at all weights together.

CLIPPED = {
    "optax": lambda: from_optax(optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(1.0))),
    "inside": lambda: mxopt.EMA(DEFINITIONS["from_optax"]()),
    "group": lambda: mxopt.Groups({"a": mxopt.SGD(momentum=0.9), "*": CLIPPED["optax"]()}),
}


@pytest.mark.parametrize("name", CLIPPED)
def test_a_trainer_steps_the_whole_tree(name, tmp_path):
    trainers = [mxopt.Trainer(tree(0), CLIPPED[name]()) for _ in range(2)]
    for seed in range(1, 4):
        trainers[0].step(tree(seed), batch_size=1)
    expected, state = pure(CLIPPED[name](), 3)
    assert_near(trainers[0].params, expected, 8)
    assert_near(trainers[0].states[""], state, 8)
    assert trainers[0].optimizer.num_update == 3
    trainers[0].save_states(tmp_path / "states")
    if name == "group":
        # Which transformation it was is not in a file, and inside of groups not looked for.
        return
    trainers[1].load_states(tmp_path / "states")
    assert_same(trainers[1].states, trainers[0].states)
    assert trainers[1].optimizer.num_update == 3
    if name == "optax":
        # Nothing of a weight is in this state.
        return
    other = mxopt.Trainer({"d": jnp.ones(2)}, CLIPPED[name]())
    with pytest.raises(ValueError, match=r"^Trainer\.load_states\(.*\): "):
        other.load_states(tmp_path / "states")


@pytest.mark.parametrize(
    "opt", [CLIPPED["optax"](), DEFINITIONS["nested"]()], ids=["optax", "ours"]
)
def test_a_missing_gradient_is_refused_where_it_would_change_the_others(opt):
    trainer, grads = mxopt.Trainer(tree(0), opt), tree(1) | {"b": None}
    with pytest.raises(ValueError, match=r"^Trainer\.step\('b'\): grad must be an array, as "):
        trainer.step(grads, batch_size=1, ignore_stale_grad=True)
    assert_same(trainer.params, tree(0))
    assert trainer.optimizer.num_update == 0


def test_a_missing_gradient_is_left_out_where_weights_stand_alone():
    trainer = mxopt.Trainer(tree(0), DEFINITIONS["EMA"]())
    trainer.step(tree(1) | {"b": None}, batch_size=1, ignore_stale_grad=True)
    trainer.step(tree(2), batch_size=1)
    counts = {name: int(state.num_update) for name, state in trainer.states.items()}
    assert counts == {"a": 2, "b": 1, "c": 2}


def test_lists_that_cannot_be_updated_as_a_tree_are_refused():
    w = jnp.ones(2)
    updater = mxopt.get_updater(DEFINITIONS["ClipGlobalNorm"]())
    updater(0, w, w)
    said = r"^ClipGlobalNorm\.update: the weights of a list .* got counts \[0, 1\]\.$"
    with pytest.raises(ValueError, match=said):
        updater([0, 1], [w, w], [w, w])
    assert updater.optimizer.num_update == 1
    with pytest.raises(ValueError, match=r"^ClipGlobalNorm\.update: every index .* '1' twice\.$"):
        mxopt.get_updater(DEFINITIONS["ClipGlobalNorm"]())([1, "1"], [w, w], [w, w])
    updater = mxopt.get_updater(DEFINITIONS["from_optax"]())
    with pytest.raises(ValueError, match=r"^FromOptax\.update: index must be that of one weight"):
        updater([0, 1], [w, w], [w, w])
    assert len(updater([0], [w], [w])) == 1


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


def test_gradients_that_add_up_have_the_scale_of_their_own_call():
    definition = mxopt.Accumulate(mxopt.SGD(learning_rate=1.0), every=2)
    trainer = mxopt.Trainer({"w": jnp.zeros(1)}, definition)
    for batch_size in (8, 2):
        trainer.step({"w": jnp.full(1, float(batch_size))}, batch_size)
    assert trainer.params["w"].tolist() == [-1.0]


def tenth(t):
    return 0.1


def test_a_trainer_of_groups_goes_on_with_functions_of_its_own(tmp_path):
    opt = mxopt.Groups(
        {"a": mxopt.Adam(lr_scheduler=tenth), "*": from_optax(optax.sgd(0.1, momentum=0.9))}
    )
    first, second = (mxopt.Trainer(tree(), mxopt.EMA(opt)) for _ in range(2))
    first.step(tree(1), 1)
    first.save_states(tmp_path / "states")
    second.load_states(tmp_path / "states")
    assert_same(second.states, first.states)
    assert second.optimizer.definition == first.optimizer.definition


def test_a_file_of_another_wrapper_is_refused_by_name(tmp_path):
    mxopt.Trainer(tree(), mxopt.EMA(mxopt.Adam())).save_states(tmp_path / "states")
    for opt, name in ((mxopt.Adam(), "Adam"), (mxopt.EMA(mxopt.SGD()), r"EMA\(SGD\)")):
        with pytest.raises(ValueError, match=rf"must be of {name}, got EMA\(Adam\)\.$"):
            mxopt.Trainer(tree(), opt).load_states(tmp_path / "states")


def test_an_optimizer_has_no_functions_of_what_is_inside():
    """`init` and `step` of the definition inside would leave the wrapper out."""
    for name in ("init", "step", "pack"):
        assert not hasattr(mxopt.Optimizer(mxopt.EMA(mxopt.SGD())), name)


def test_a_count_that_would_be_dropped_is_refused():
    opt = mxopt.Optimizer(mxopt.EMA(mxopt.SGD()))
    with pytest.raises(AttributeError, match="num_update cannot be assigned around EMA"):
        opt.num_update = 5
    assert opt.num_update == 0


@pytest.mark.usefixtures("compiled_quickly")
def test_a_trainer_keeps_the_scale_of_each_group():
    groups = {
        "a": mxopt.SGD(learning_rate=1.0, rescale_grad=0.5),
        "b": mxopt.SGD(learning_rate=1.0, rescale_grad=2.0),
    }
    trainer = mxopt.Trainer({"a": jnp.zeros(1), "b": jnp.zeros(1)}, mxopt.Groups(groups))
    for steps in (1, 2):
        params = trainer.step({"a": jnp.ones(1), "b": jnp.ones(1)}, batch_size=4)
        assert (params["a"].item(), params["b"].item()) == (-0.125 * steps, -0.5 * steps)
    kept = trainer.optimizer.definition.groups
    assert (kept["a"].rescale_grad, kept["b"].rescale_grad) == (0.5, 2.0)


def test_multipliers_are_refused_where_nothing_takes_them():
    definition = from_optax(optax.sgd(0.1))
    with pytest.raises(TypeError, match="param_dict must be left out: FromOptax"):
        mxopt.Optimizer(definition, param_dict={0: object()})
    opt = mxopt.Optimizer(definition)
    with pytest.raises(TypeError, match="param_dict must be left out: FromOptax"):
        opt.param_dict = {0: object()}
    with pytest.raises(TypeError, match="lr_mult must be left out: FromOptax"):
        opt.set_lr_mult({"w": 0.5})


@pytest.mark.parametrize("definition", [mxopt.SGD(), mxopt.EMA(mxopt.SGD())])
def test_indices_of_a_list_must_be_hashable(definition):
    opt, w = mxopt.Optimizer(definition), jnp.ones(2)
    states = [opt.create_state(n, w) for n in range(2)]
    with pytest.raises(TypeError, match=r"update: index must be hashable, got \[1\]"):
        opt.update([[1], [2]], [w, w], [w, w], states)


@pytest.mark.parametrize("wrap", [lambda opt: opt, mxopt.EMA])
def test_tracers_are_refused_when_they_are_given(wrap):
    opt = mxopt.Optimizer(wrap(mxopt.SGD()))

    def given(x):
        with pytest.raises(TypeError, match="must be a known number, got a tracer"):
            opt.set_lr_mult({"w": x})
        with pytest.raises(TypeError, match="must be a known number, got a tracer"):
            opt.wd_mult = {"w": x}
        with pytest.raises(TypeError, match=r"got a tracer|known number"):
            mxopt.Optimizer(wrap(mxopt.SGD(learning_rate=x)))
        return x

    jax.jit(given)(1.0)
    assert not opt.lr_mult
