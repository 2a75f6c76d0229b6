"""Names that are equal, numbers of any library, classes defined twice, errors that authors meet."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jaxmxopt as mxopt
from jaxmxopt import checkpoint
from jaxmxopt.algorithm import DecayRate, Like, OptimizerDef, Rates, Static, real

# Names.

DOUBLE = {"a/b": jnp.ones(2), "a": {"b": jnp.zeros(2)}}
CALLS: dict[str, Callable[[], Any]] = {
    "init": lambda: mxopt.Adam().init(DOUBLE),
    "init of a wrapper": lambda: mxopt.EMA(mxopt.SGLD()).init(DOUBLE),
    "init of groups": lambda: mxopt.Groups({"*": None}).init(DOUBLE),
    "step": lambda: mxopt.SGD().step(DOUBLE, DOUBLE, mxopt.SGD().init({"a": jnp.ones(2)})),
    "pack": lambda: mxopt.SGD().pack(DOUBLE, DOUBLE),
    "unpack": lambda: mxopt.SGD().init({"a": jnp.ones(2)}).unpack(DOUBLE),
    "averaged": lambda: mxopt.averaged(DOUBLE, mxopt.EMA(mxopt.SGD()).init({"a": jnp.ones(2)})),
    "Trainer": lambda: mxopt.Trainer(DOUBLE, "adam"),
}


@pytest.mark.parametrize("call", CALLS)
def test_two_weights_of_one_name_are_refused_with_both_paths(call: str) -> None:
    with pytest.raises(ValueError, match=r"'a/b' for \['a'\]\['b'\] and \['a/b'\]; rename one"):
        CALLS[call]()


# Numbers of NumPy and of its guests.

KINDS = [
    *(np.float16, np.float32, np.float64, np.longdouble, np.int8, np.int64, np.uint16),
    *(ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.int4),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_scalars_of_every_real_dtype_are_numbers(kind: Any) -> None:
    opt = mxopt.SGD(learning_rate=kind(1), lr_mult={"w": kind(1)})
    assert type(opt.learning_rate) is float
    assert opt == mxopt.SGD(learning_rate=1.0, lr_mult={"w": 1.0})
    assert mxopt.create("sgd", learning_rate=kind(1)).learning_rate == 1.0


@pytest.mark.parametrize("value", [np.bool_(True), np.complex64(1), np.str_("1"), 1j])
def test_scalars_that_are_not_real_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="SGD: learning_rate must be a real number"):
        mxopt.SGD(learning_rate=value)


def test_an_array_given_as_a_hyperparameter_is_not_shared() -> None:
    rate, factor = np.float32([0.5]), np.array(2.0)
    opt = mxopt.SGD(learning_rate=rate, lr_mult={"w": factor})
    rate[:], factor[...] = 7.0, 7.0
    assert opt.learning_rate == 0.5
    assert opt.lr_mult is not None
    assert opt.lr_mult["w"] == 2.0


# A class that is defined twice, as by a notebook cell.


def define(*extra: str) -> type[OptimizerDef]:
    slots = NamedTuple("LionSlots", [(name, jax.Array) for name in ("mom", *extra)])
    slots.__qualname__, slots.__module__ = "LionSlots", __name__

    class Lion(OptimizerDef):
        acts_on = "elements"

        def slots(self, like: Like) -> Any:
            return slots(*(like.zeros() for _ in slots._fields))

        def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            mom = 0.5 * slots[0] + grad
            return weight - rates.lr * mom, type(slots)(mom, *slots[1:])

    return Lion


def test_states_go_on_after_the_class_was_defined_again() -> None:
    w, old, new = jnp.ones(2), define()(), define()()
    first, state = old.step({"w": w}, {"w": w}, old.init({"w": w}))
    expected, _ = old.step(first, {"w": w}, state)
    found, after = new.step(first, {"w": w}, state)
    np.testing.assert_array_equal(found["w"], expected["w"])
    assert jax.tree.structure(after) == jax.tree.structure(new.init({"w": w}))
    before = mxopt.get_updater(old)
    moved = before(0, w, w)
    again = mxopt.get_updater(new)
    again.set_states(before.get_states())
    np.testing.assert_array_equal(again(0, w, moved), expected["w"])
    held, created = mxopt.Optimizer(new), mxopt.Optimizer(old).create_state(0, w)
    held.update(0, w, w, created)


def test_classes_of_one_name_are_told_apart() -> None:
    w, old, new = jnp.ones(2), define(), define("var")
    with pytest.raises(TypeError, match=r"LionSlots, got another class LionSlots .* with mom\."):
        new().update(0, w, w, old().create_state(0, w))


# States of MXNet with a master.


@pytest.mark.parametrize("name", ["sgd", "nag", "lbsgd", "signum"])
def test_a_master_and_a_momentum_come_in_either_order(name: str) -> None:
    given = {"momentum": 0.5, "multi_precision": True, "learning_rate": 0.25}
    given |= {"warmup_epochs": 0} if name == "lbsgd" else {}
    weight, master = jnp.ones(2, jnp.float16), jnp.float32([1.0001, 1.0])
    mom = jnp.float32([0.5, -0.25])
    ends = []
    for state in ((master, mom), (mom, master)):
        _, after = mxopt.create(name, **given).update(0, weight, weight, state)
        ends.append((after.master, after.slots.mom))
    np.testing.assert_array_equal(*[end[0] for end in ends])
    np.testing.assert_array_equal(*[end[1] for end in ends])


def test_lars_takes_either_order_too() -> None:
    opt = mxopt.create("lars", momentum=0.5, multi_precision=True)
    weight, master, mom = jnp.ones(2, jnp.float16), jnp.float32([1.0001, 1.0]), jnp.zeros(2) + 0.5
    for state in ((master, mom), (mom, master)):
        _, after = opt.update(0, weight, jnp.zeros(2, jnp.float16), state)
        np.testing.assert_allclose(after.master, master + 0.5 * mom, rtol=1e-6)


def test_two_arrays_that_nothing_tells_apart_are_refused() -> None:
    opt = mxopt.create("sgd", momentum=0.5, multi_precision=True)
    weight, tiny = jnp.zeros(2, jnp.float16), jnp.full(2, 1e-12)
    with pytest.raises(ValueError, match=r"SGD.update\(0\): .* got two that do; MasterState"):
        opt.update(0, weight, weight, (tiny, 2 * tiny))
    with pytest.raises(ValueError, match="got none that do"):
        opt.update(0, weight, weight, (tiny + 1, tiny + 2))


# Errors that an author of an algorithm meets.


class Mom(NamedTuple):
    mom: jax.Array


class Branching(OptimizerDef):
    momentum: DecayRate = 0.5

    def slots(self, like: Like) -> Any:
        return Mom(like.zeros()) if self.momentum else ()

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        return weight, slots


def test_slots_that_branch_on_a_number_are_told_of_is_zero() -> None:
    opt, w = Branching(), jnp.ones(2)
    with pytest.raises(TypeError, match=r"Branching.slots: must not branch .* is_zero\("):
        opt.update(0, w, w, opt.create_state(0, w))


@pytest.mark.parametrize(
    ("given", "shown"),
    [(lambda lr, wd: (lr, wd), "tuple"), (lambda lr, wd: Mom(lr), "Mom of mom"),
     (lambda lr, wd: None, "NoneType")],
)  # fmt: skip
def test_rates_must_have_a_rate_and_a_decay(given: Any, shown: str) -> None:
    class Wrong(OptimizerDef):
        def rates(self, lr: Any, wd: Any, t: Any) -> Any:
            return given(lr, wd)

        def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            return weight - rates.lr * grad, slots

    opt, w = Wrong(), jnp.ones(2)
    message = rf"\.update\(0\): rates must return a NamedTuple .* got {shown}\."
    with pytest.raises(TypeError, match=message):
        opt.update(0, w, w, opt.create_state(0, w))
    with pytest.raises(TypeError, match=message):
        mxopt.Optimizer(opt).update(0, w, w, ())


def test_methods_with_their_names_of_old_are_refused_with_the_new() -> None:
    with pytest.raises(TypeError, match=r"Old\._rule must be called rule"):

        class Old(OptimizerDef):  # pyright: ignore[reportUnusedClass]
            def _rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
                return weight, slots


def test_rates_of_ones_own_pass() -> None:
    class More(NamedTuple):
        lr: Any
        wd: Any
        t: Any

    class Right(OptimizerDef):
        def rates(self, lr: Any, wd: Any, t: Any) -> More:
            return More(*Rates(lr, wd), t)

        def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            return weight - rates.lr * real(rates.t, weight) * grad, slots

    opt, w = Right(learning_rate=0.5), jnp.ones(2)
    assert opt.update(0, w, w, opt.create_state(0, w))[0].tolist() == [0.5, 0.5]


class Total(NamedTuple):
    total: jax.Array


class ByRows(OptimizerDef):
    lazy_update: Static[bool] = True
    acts_on = "rows"
    counts: Static[bool] = True

    def slots(self, like: Like) -> Total:
        return Total(like.zeros(axes=()))

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Total) -> Any:
        more = 1 if self.counts else jnp.sum(grad * grad)
        return weight - rates.lr * grad, Total(slots.total + more)


def test_a_number_beside_rows_must_not_depend_on_the_rows() -> None:
    w = jnp.ones((6, 2))
    grad = mxopt.RowSparse([1, 2], jnp.ones((2, 2)), w.shape)
    opt = ByRows()
    assert opt.update(0, w, grad, opt.create_state(0, w))[1].slots.total == 1
    opt = ByRows(counts=False)
    with pytest.raises(ValueError, match=r"ByRows.update\(0\): rule must .* the same for any rows"):
        opt.update(0, w, grad, opt.create_state(0, w))


# Frozen leaves.

FROZEN = {
    **{"int": 3, "float": 2.5, "bool": True, "complex number": 1j, "NumPy": np.int64(3)},
    **{"None": None, "integers": jnp.arange(3), "key": jax.random.key(0)},
    "complex": jnp.ones(2, jnp.complex64),
}
GROUPS = mxopt.Groups({"a*": None, "*": mxopt.SGD(learning_rate=1.0)})
AROUND: dict[str, Any] = {
    "EMA": lambda: mxopt.EMA(GROUPS, decay=0.5),
    "Accumulate": lambda: mxopt.Accumulate(GROUPS, every=2),
    "ClipGlobalNorm": lambda: mxopt.ClipGlobalNorm(GROUPS, max_norm=9.0),
    "inside": lambda: mxopt.Groups({"a*": None, "*": mxopt.EMA(mxopt.SGD(learning_rate=1.0))}),
}


@pytest.mark.filterwarnings("ignore:.*is of no weight")
@pytest.mark.parametrize("around", AROUND)
def test_frozen_leaves_may_be_anything(around: str) -> None:
    opt = AROUND[around]()
    params = {f"a {name}": value for name, value in FROZEN.items()} | {"w": jnp.ones(2)}
    grads = dict.fromkeys(params) | {"w": jnp.ones(2)}
    state = opt.init(params)
    new, after = opt.step(params, grads, state)
    new, after = opt.step(new, grads, after)
    moved = 1 if around == "Accumulate" else 2
    np.testing.assert_array_equal(new.pop("w"), jnp.ones(2) - moved)
    for name, value in new.items():
        if value is not None:
            assert jnp.all(value == params[name]), name
    after.unpack(params)
    whole = checkpoint.loads(checkpoint.dumps(after, params=params), state, params=params)
    assert jax.tree.structure(whole) == jax.tree.structure(after)
    if around == "EMA":
        kept = mxopt.averaged(params, after)
        assert (kept["a int"], kept["a complex number"]) == (3, 1j)


def test_all_weights_may_be_frozen() -> None:
    opt, params = mxopt.Groups({"a": None}), {"a": jnp.ones(2)}
    new, _ = opt.step(params, {"a": None}, opt.init(params))
    np.testing.assert_array_equal(new["a"], params["a"])


def test_a_trainer_does_not_look_at_gradients_of_frozen_leaves() -> None:
    trainer = mxopt.Trainer({"a": 3, "w": jnp.ones(2)}, GROUPS)
    params = trainer.step({"a": 2.5, "w": jnp.ones(2)}, 1)
    assert params["a"] == 3
    np.testing.assert_array_equal(params["w"], 0)
