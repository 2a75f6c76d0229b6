"""Wrong calls: refused at once, by a message that says what was given and expected, and where."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import ALGORITHMS, assert_same, make, tree

import jaxmxopt as mxopt

ADAM = make(mxopt.Adam)
WEIGHT = jnp.ones((2, 3))
STATE = ADAM.create_state("w", WEIGHT)


def says(text):
    return re.escape(text)


# One weight.

WRONG_WEIGHTS = {
    "int32": jnp.ones(2, jnp.int32),
    "complex64": jnp.ones(2, jnp.complex64),
    "bool": jnp.ones(2, bool),
    "str": "text",
    "list": [1.0, 2.0],
    "NoneType": None,
}


@pytest.mark.parametrize("call", ["create_state", "create_state_multi_precision"])
@pytest.mark.parametrize("kind", WRONG_WEIGHTS)
def test_a_weight_that_is_no_floating_array(call, kind):
    message = (
        rf"Adam\.{call}\('w'\): weight must be (an array|of a real floating dtype), got {kind}\."
    )
    with pytest.raises(TypeError, match=message):
        getattr(ADAM, call)("w", WRONG_WEIGHTS[kind])


def test_a_matrix_is_needed():
    with pytest.raises(ValueError, match=r"GroupAdaGrad\.create_state\('w'\): "):
        mxopt.GroupAdaGrad().create_state("w", jnp.ones(3))
    with pytest.raises(ValueError, match="GroupAdaGrad: wd must be"):
        mxopt.GroupAdaGrad(wd=0.1)


def slots(**changes):
    return STATE._replace(slots=STATE.slots._replace(**changes))


WRONG_UPDATES = {
    "grad's shape": (
        (WEIGHT, jnp.ones((3, 2)), STATE),
        ValueError, "grad has shape (3, 2), weight has (2, 3).",
    ),
    "grad's dtype": (
        (WEIGHT, jnp.ones((2, 3), int), STATE),
        TypeError, "grad must be of a real floating dtype, got int32.",
    ),
    "complex grad": (
        (WEIGHT, jnp.ones((2, 3), jnp.complex64), STATE),
        TypeError, "grad must be of a real floating dtype, got complex64.",
    ),
    "no grad": ((WEIGHT, None, STATE), TypeError, "grad must be an array, got NoneType."),
    "list": (([1.0], WEIGHT, STATE), TypeError, "weight must be an array, got list."),
    "weight's dtype": (
        (WEIGHT.astype(int), WEIGHT, STATE),
        TypeError, "weight must be of a real floating dtype, got int32.",
    ),
    "rows of another shape": (
        (WEIGHT, mxopt.RowSparse([0], jnp.ones((1, 2)), (2, 2)), STATE),
        ValueError, "grad has shape (2, 2), weight has (2, 3).",
    ),
    "no state": ((WEIGHT, WEIGHT, None), TypeError, "state must be a State, got NoneType."),
    "plain tuple": ((WEIGHT, WEIGHT, tuple(STATE)), TypeError, "state must be a State, got tuple."),
    "another algorithm's": (
        (WEIGHT, WEIGHT, make(mxopt.SGD).create_state(0, WEIGHT)),
        TypeError, "state is of another algorithm: slots must be AdamSlots, got MomentumSlots.",
    ),
    "another weight's": (
        (WEIGHT, WEIGHT, ADAM.create_state(0, jnp.ones(4))),
        ValueError, "state.slots.mean has shape (4,), expected (2, 3) for a weight of shape (2, 3)",
    ),
    "a tree's": ((WEIGHT, WEIGHT, ADAM.init([WEIGHT])), TypeError, "state is of a tree of weights"),
    "missing slot": (
        (WEIGHT, WEIGHT, slots(var=None)),
        TypeError, "state.slots.var must be an array, got NoneType.",
    ),
    "integer slot": (
        (WEIGHT, WEIGHT, slots(var=WEIGHT.astype(int))),
        TypeError, "state.slots.var has dtype int32, expected float32.",
    ),
    "no count": (
        (WEIGHT, WEIGHT, STATE._replace(num_update=None)),
        TypeError, "state.num_update must be an integer scalar, got NoneType.",
    ),
    "several counts": (
        (WEIGHT, WEIGHT, STATE._replace(num_update=jnp.zeros(3, int))),
        TypeError, "state.num_update must be an integer scalar, got shape (3,) and dtype int32.",
    ),
    "half master": (
        (WEIGHT, WEIGHT, STATE._replace(master=WEIGHT.astype(jnp.float16))),
        ValueError, "state.master has shape (2, 3) and dtype float16, expected (2, 3) and float32.",
    ),
    "another master": (
        (WEIGHT, WEIGHT, STATE._replace(master=jnp.ones(5))),
        ValueError, "state.master has shape (5,) and dtype float32, expected (2, 3) and float32.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_UPDATES)
@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_a_wrong_update(case, jitted):
    arguments, error, message = WRONG_UPDATES[case]
    update = jax.jit(ADAM.update, static_argnums=0) if jitted else ADAM.update
    with pytest.raises(error, match=says(f"Adam.update('w'): {message}")) as raised:
        update("w", *arguments)
    assert type(raised.value) is error
    assert raised.value.__cause__ is None
    with pytest.raises(error, match=says(message)):
        ADAM.update_multi_precision("w", *arguments)


def test_an_index_must_be_hashable():
    with pytest.raises(TypeError, match=says("Adam.update: index must be hashable, got [1].")):
        ADAM.update([1], WEIGHT, WEIGHT, STATE)


@pytest.mark.parametrize("index", [None, (1, "a"), frozenset({2}), -3, 2.5, b"x"], ids=repr)
def test_an_index_may_be_anything_hashable(index):
    state = ADAM.create_state(index, WEIGHT)
    assert_same(ADAM.update(index, WEIGHT, WEIGHT, state), ADAM.update("w", WEIGHT, WEIGHT, STATE))


def test_a_stacked_definition_must_be_mapped():
    opt = mxopt.SGD(learning_rate=jnp.ones(3))
    message = "SGD.update(0): learning_rate must be a scalar, got shape (3,); map over stacked"
    with pytest.raises(ValueError, match=says(message)):
        opt.update(0, WEIGHT, WEIGHT, opt.create_state(0, WEIGHT))
    with pytest.raises(ValueError, match="learning_rate must be a scalar"):
        opt.step([WEIGHT], [WEIGHT], opt.init([WEIGHT]))


@pytest.mark.parametrize(
    ("rate", "error"), [(None, TypeError), (jnp.ones(1), ValueError), (1j, ValueError)]
)
def test_a_schedule_must_give_a_number(rate, error):
    opt = mxopt.SGD(lr_scheduler=lambda t: rate)
    with pytest.raises(error, match=r"SGD\.update\(0\): lr_scheduler must give a"):
        opt.update(0, WEIGHT, WEIGHT, opt.create_state(0, WEIGHT))


@pytest.mark.parametrize(
    "schedule",
    [
        lambda t: 0.1 if t < 5 else 0.01,
        lambda t: 0.1 / np.sqrt(np.asarray(t)),
        lambda t: [0.1, 0.01, 0.001][t],
        lambda t: 0.1 / int(t),
    ],
    ids=["if", "numpy", "list", "int"],
)
def test_a_schedule_must_take_a_traced_count(schedule):
    opt = mxopt.SGD(lr_scheduler=schedule)
    state = opt.create_state(0, WEIGHT)
    with pytest.raises(TypeError, match="SGD: lr_scheduler must take a traced count: jnp"):
        jax.jit(lambda w, s: opt.update(0, w, w, s))(WEIGHT, state)
    # Outside of jax.jit it is asked with the count itself.
    opt.update(0, WEIGHT, WEIGHT, state)
    stateful = mxopt.create("sgd", lr_scheduler=schedule)
    stateful.update(0, WEIGHT, WEIGHT, stateful.create_state(0, WEIGHT))


@pytest.mark.parametrize("rate", [None, "x", jnp.ones(2)], ids=["none", "text", "vector"])
def test_a_schedule_of_the_stateful_layer_must_give_a_number(rate):
    opt = mxopt.create("sgd", lr_scheduler=lambda t: rate)
    with pytest.raises(TypeError, match=r"SGD\.learning_rate: lr_scheduler must give a number"):
        opt.update(0, WEIGHT, WEIGHT, opt.create_state(0, WEIGHT))
    assert opt.num_update == 0


def test_a_definition_without_a_rule_says_so():
    mine = type("Mine", (mxopt.OptimizerDef,), {})()
    with pytest.raises(NotImplementedError, match="Mine must define rule"):
        mine.update(0, WEIGHT, WEIGHT, mine.create_state(0, WEIGHT))


# Whole trees.

PARAMS = tree()
ROWS = mxopt.RowSparse([1], jnp.ones((1, 2)), (3, 2))


def wrong_steps():
    made = ADAM.init(PARAMS)
    return {
    "missing grad": (
        {"grads": {key: PARAMS[key] for key in "ab"}},
        ValueError, "Adam.step: grads must have the structure of params, got no gradient for 'c'.",
    ),
    "extra grad": (
        {"grads": {**PARAMS, "z": WEIGHT}},
        ValueError, "Adam.step: grads must have the structure of params, got a gradient for 'z'",
    ),
    "other nodes": (
        {"grads": list(PARAMS.values())},
        ValueError, "Adam.step: grads must have the structure of params, got",
    ),
    "grad's shape": (
        {"grads": {**PARAMS, "b": WEIGHT}},
        ValueError, "Adam.step('b'): grad has shape (2, 3), weight has (3, 2).",
    ),
    "grad's dtype": (
        {"grads": {**PARAMS, "b": jnp.ones((3, 2), int)}},
        TypeError, "Adam.step('b'): grad must be of a real floating dtype, got int32.",
    ),
    "text": (
        {"grads": {**PARAMS, "c": "text"}},
        TypeError, "Adam.step('c'): grad must be an array, got str.",
    ),
    "integer weight": (
        {"params": {**PARAMS, "c": PARAMS["c"].astype(int)}},
        TypeError, "Adam.step('c'): weight must be of a real floating dtype, got int32.",
    ),
    "no state": ({"state": None}, TypeError, "Adam.step: state must be a State, got NoneType."),
    "state of a weight": (
        {"state": STATE},
        ValueError, "init(params). Its AdamSlots is of one weight or of another definition.",
    ),
    "state of fewer": (
        {"state": ADAM.init({"a": WEIGHT})},
        ValueError, "Adam.step: state is of 1 weights, params has 3; make it with init(params).",
    ),
    "state of others": (
        {"state": ADAM.init(dict(zip("abd", PARAMS.values(), strict=True)))},
        ValueError, "Adam.step: state is of 'd' where params has 'c'; make it with init(params).",
    ),
    "no masters": (
        {"state": made._replace(master=None)},
        ValueError, "Adam.step: state is not of this tree of weights; make it with init(params).",
    ),
    "another algorithm's": (
        {"state": make(mxopt.SGD).init(PARAMS)},
        TypeError, "Adam.step('a'): state is of another algorithm: slots must be AdamSlots, got",
    ),
    "weights in other places": (
        {"params": {**PARAMS, "b": PARAMS["c"], "c": PARAMS["b"]},
         "grads": {**PARAMS, "b": PARAMS["c"], "c": PARAMS["b"]}},
        ValueError, "Adam.step('b'): weight has shape (2, 4) and dtype float32, state was made for",
    ),
    "another dtype in a group": (
        {"params": {**PARAMS, "b": PARAMS["b"].astype(jnp.bfloat16)}},
        ValueError, "Adam.step('b'): weight has shape (3, 2) and dtype bfloat16, state was made",
    ),
    "where": (
        {"where": jnp.ones(2, bool)},
        ValueError, "Adam.step: where must be a scalar bool, got shape (2,) and dtype bool.",
    ),
    "where's dtype": (
        {"where": jnp.float32(1)},
        ValueError, "Adam.step: where must be a scalar bool, got shape () and dtype float32.",
    ),
    "a tree of where": (
        {"where": PARAMS}, TypeError, "Adam.step: where must be a scalar bool, got dict; all_",
    ),
    "indices that are not integers": (
        {"grads": {**PARAMS, "b": jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), ROWS)}},
        TypeError, "Adam.step('b'): grad.indices must be integers, got float32: arithmetic on",
    ),
}  # fmt: skip


@pytest.mark.usefixtures("shared_arrays")
@pytest.mark.parametrize("case", list(wrong_steps()))
@pytest.mark.parametrize("donate", [False, True], ids=["kept", "donated"])
def test_a_wrong_step_changes_nothing(case, donate):
    changes, error, message = wrong_steps()[case]
    state = ADAM.init(PARAMS)
    given = {"params": PARAMS, "grads": PARAMS, "state": state, **changes}
    with pytest.raises(error, match=says(message)) as raised:
        ADAM.step(**given, donate=donate)
    assert type(raised.value) is error
    assert raised.value.__cause__ is None
    assert_same(PARAMS, tree())
    assert_same(state, ADAM.init(PARAMS))


@pytest.mark.parametrize("donate", [False, True], ids=["kept", "donated"])
def test_what_is_dead_is_named(donate):
    params, state = tree(), ADAM.init(PARAMS)
    params["b"].delete()
    message = "must be alive, got an array that was donated or deleted."
    with pytest.raises(ValueError, match=says(f"Adam.step('b'): weight {message}")):
        ADAM.step(params, PARAMS, state, donate=donate)
    with pytest.raises(ValueError, match=says(f"Adam.update('b'): weight {message}")):
        ADAM.update("b", params["b"], PARAMS["b"], ADAM.create_state("b", PARAMS["b"]))


@pytest.mark.parametrize("donate", [False, True], ids=["kept", "donated"])
def test_errors_of_others_stay_what_they_are(donate):
    def broken(count):
        raise ValueError("my schedule is broken")

    same = jnp.zeros((3, 2))
    params, grads = tree(), {**PARAMS, "a": same, "b": same}
    opt = mxopt.SGD(lr_scheduler=broken)
    with pytest.raises(ValueError, match=r"^my schedule is broken"):
        opt.step(params, grads, opt.init(params), donate=donate)


def test_what_would_be_donated_twice_is_named():
    twice = {**tree(), "b": PARAMS["a"], "a": PARAMS["a"]}
    message = "Adam.step('b'): weight must be another array than weight 'a', which is donated"
    with pytest.raises(ValueError, match=says(message)):
        ADAM.step(twice, PARAMS, ADAM.init(PARAMS), donate=True)
    params = tree()
    message = "Adam.step('a'): grad must be another array than weight 'a', which is donated"
    for grads in (params, jax.tree.map(lambda leaf: jax.device_put(leaf, may_alias=True), params)):
        with pytest.raises(ValueError, match=says(message)):
            ADAM.step(params, grads, ADAM.init(params), donate=True)
    ADAM.step(twice, PARAMS, ADAM.init(PARAMS))


@pytest.mark.parametrize(
    ("opt", "message"),
    [
        (mxopt.Adam(wd_mult={"*/biass": 0.0}), "Adam.init: wd_mult['*/biass'] is of no weight; "),
        (mxopt.Adam(lr_mult={0: 2.0}), "Adam.init: lr_mult[0] is of no weight; there are 'd/bias'"),
        (mxopt.Groups({"*": ADAM, "d/*": ADAM}), "Groups.init: groups['d/*'] is of no weight; "),
        (
            mxopt.EMA(mxopt.Groups({"*/bias": make(mxopt.SGD, lr_mult={"e": 1}), "*": ADAM})),
            "EMA.init: lr_mult['e'] is of no weight; there are 'd/bias', 'd/kernel'.",
        ),
    ],
)
def test_keys_of_no_weight_are_warned_of(opt, message):
    params = {"d": {"bias": WEIGHT, "kernel": WEIGHT}}
    with pytest.warns(UserWarning, match=says(message)) as caught:
        opt.init(params)
    assert [warning.filename for warning in caught] == [__file__]


def test_keys_of_weights_are_not_warned_of():
    names = {"d/bias": "fc_bias"}
    keys = {"fc_*": 1.0, "d/bias": 2.0, "fc_bias": 3.0, "*/kernel": 4.0}
    mxopt.Adam(lr_mult=keys, param_idx2name=names).init({"d": {"bias": WEIGHT, "kernel": WEIGHT}})


GIVEN = {
    "shape": (lambda w, s: (w.sum(), s), "a weight of shape (2, 3), got ()."),
    "pair": (lambda w, s: w, "(weight, slots), got "),
    "slots": (lambda w, s: (w, (*s, w)), "slots like those it was given, "),
    "slot": (lambda w, s: (w, (w[0],)), "slots.0 of shape (2, 3), got (3,)."),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_what_a_rule_gives_is_checked(kind):
    given, message = GIVEN[kind]

    class Custom(mxopt.OptimizerDef):
        def slots(self, like):
            return (like.zeros(),)

        def rule(self, rates, weight, grad, slots):
            return given(weight, slots)

    opt = Custom()
    with pytest.raises((TypeError, ValueError), match=says(f": rule must return {message}")):
        opt.update("w", WEIGHT, WEIGHT, opt.create_state("w", WEIGHT))


def test_slots_are_made_by_like():
    class Custom(mxopt.OptimizerDef):
        def slots(self, like):
            return STATE.slots

    message = "Custom.create_state('w'): slots must return slots that `like` makes, got ArrayImpl."
    with pytest.raises(TypeError, match=says(message)):
        Custom().create_state("w", WEIGHT)


def test_a_leaf_of_another_kind_is_named_by_init():
    params = {"dense": [WEIGHT, {"count": jnp.int32(3)}]}
    with pytest.raises(TypeError, match=r"^Adam\.init\('dense/1/count'\): weight must be of"):
        ADAM.init(params)
    with pytest.raises(ValueError, match=r"^GroupAdaGrad\.init\('w'\): "):
        mxopt.GroupAdaGrad().init({"w": jnp.ones(2)})


def test_pack_checks_each_state():
    good = {key: ADAM.create_state(key, weight) for key, weight in PARAMS.items()}
    other = make(mxopt.SGD).create_state("b", PARAMS["b"])
    later = good["b"]._replace(num_update=jnp.int32(3))
    for states, error, message in (
        ({**good, "b": 3}, TypeError, "Adam.pack('b'): state must be a State, got int."),
        ({**good, "b": STATE}, ValueError, "Adam.pack('b'): state.slots.mean has shape (2, 3)"),
        ({**good, "b": other}, TypeError, "Adam.pack('b'): state is of another algorithm"),
        ({**good, "b": later}, ValueError, "Adam.pack: all num_update must be equal, got [0, 3]."),
        (list(good.values()), ValueError, "Adam.pack: states must be a tree like params"),
    ):
        with pytest.raises(error, match=says(message)):
            ADAM.pack(PARAMS, states)


def test_unpack_says_what_it_needs():
    with pytest.raises(TypeError, match=says("State.unpack: this is the state of one weight")):
        STATE.unpack(WEIGHT)
    with pytest.raises(
        ValueError, match=says("State.unpack: the state is of 3 weights, params has 1.")
    ):
        ADAM.init(PARAMS).unpack([WEIGHT])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0]], WEIGHT, (2, 3)), "indices must be a vector of integers"),
        (([0.5], WEIGHT[:1], (2, 3)), "indices must be a vector of integers"),
        (([0], WEIGHT, (2, 3)), "values must have shape (1, 3) for 1 indices"),
        (([2], WEIGHT[:1], (2, 3)), "indices must be in [0, 2), got 2."),
        (([-1], WEIGHT[:1], (2, 3)), "indices must be in [0, 2), got -1."),
        (([], np.zeros(0, np.float32), ()), "values must have shape"),
        ((np.array([2**32]), WEIGHT[:1], (2, 3)), "indices must be of int32, got 4294967296;"),
    ],
)
def test_rows_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=says(f"RowSparse: {message}")):
        mxopt.RowSparse(*arguments)


def test_every_algorithm_refuses_the_states_of_the_others():
    """Where the slots are of another kind; kinds may be shared, as by SGD and NAG."""
    for opt in map(make, ALGORITHMS):
        foreign = make(mxopt.Adam if type(opt) is not mxopt.Adam else mxopt.SGD)
        with pytest.raises(TypeError, match=f"{type(opt).__name__}.update.*of another algorithm"):
            opt.update("w", WEIGHT, WEIGHT, foreign.create_state("w", WEIGHT))


@pytest.mark.parametrize(
    "call",
    [
        lambda: mxopt.create(mxopt.Adam),
        lambda: mxopt.Trainer(PARAMS, mxopt.Adam),
        lambda: mxopt.EMA(mxopt.Adam),
        lambda: mxopt.Groups({"*": mxopt.Adam}),
        lambda: mxopt.checkpoint.dumps(PARAMS, opt=mxopt.Adam),
        lambda: mxopt.sharding.divided(mxopt.Adam, PARAMS),
    ],
)
def test_a_class_in_the_place_of_an_optimizer_is_to_be_called(call):
    with pytest.raises(TypeError, match=says("got the class Adam; call it: Adam().")):
        call()


def test_arguments_that_have_changed_places_are_named(tmp_path):
    with pytest.raises(TypeError, match=says("checkpoint.save: path must be a path, got dict")):
        mxopt.checkpoint.save(PARAMS, tmp_path / "x.npz")
    with pytest.raises(TypeError, match=says("sharding.divided: opt must be an optimizer such as")):
        mxopt.sharding.divided(PARAMS, ADAM)
    with pytest.raises(
        TypeError, match=says("Trainer: optimizer_params must be a mapping such as")
    ):
        mxopt.Trainer(PARAMS, "adam", 0.1)


SCALER = mxopt.amp.DynamicLossScaler()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mxopt.Adam(0.1), "Adam() takes hyperparameters by name, such as learning_rate="),
        (lambda: mxopt.EMA(ADAM, 0.9), "EMA() takes hyperparameters by name, such as decay=..."),
        (lambda: SCALER.scale(SCALER.init(), 1.0), "scale: state must be a LossScale, from init"),
        (lambda: SCALER.unscale(SCALER.init(), PARAMS), "unscale: state must be a LossScale"),
        (lambda: SCALER.update(True, SCALER.init()), "update: state must be a LossScale"),
        (lambda: SCALER.update(SCALER.init(), PARAMS), "finite must be a scalar bool such as all_"),
        (lambda: mxopt.amp.clip_global_norm(1.0, PARAMS), "max_norm must be a number, got dict"),
        (lambda: mxopt.amp.clip_global_norm(PARAMS, "1"), "max_norm must be a number, got str"),
        (lambda: mxopt.sharding.divided(ADAM, PARAMS, 3), "axis must be the name of a mesh axis"),
        (lambda: mxopt.value_and_row_grad("a", print), "loss must be a function, got 'a'"),
        (
            lambda: mxopt.mxnet_files.save_states("x", mxopt.create("sgd")),
            "updater must be an Updater or a Trainer, got SGD.",
        ),
        (
            lambda: mxopt.Trainer(PARAMS, "adam", {"lr_mult": {"a": 1.0}}),
            "unknown argument 'lr_mult'; set_lr_mult sets it, and so does a definition",
        ),
    ],
)
def test_wrong_arguments_say_what_was_meant(call, message):
    with pytest.raises(TypeError, match=says(message)):
        call()


@pytest.mark.parametrize(("name", "meant"), [("adam", "Adam"), ("RMSprop", "RMSProp")])
def test_names_in_other_letters_are_found(name, meant):
    with pytest.raises(
        AttributeError, match=says(f"has no attribute {name!r}; did you mean {meant!r}")
    ):
        getattr(mxopt, name)


def test_a_value_beside_its_gradients_is_seen():
    with pytest.raises(ValueError, match=says("got a tuple of 2: jax.value_and_grad gives")):
        ADAM.step(PARAMS, (1.0, PARAMS), ADAM.init(PARAMS))


def test_lazy_updates_that_cannot_be_are_warned_of():
    with pytest.warns(UserWarning, match="LAMB: lazy_update=True changes nothing"):
        mxopt.LAMB(lazy_update=True)
