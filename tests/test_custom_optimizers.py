"""Optimizers written for MXNet run after the port, in the Updater and in the Trainer."""

import copy
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_optimizers import Cautious, Centred, SignDescent
from samples import assert_near, assert_same

import jaxmxopt as mxopt
from jaxmxopt import optimizer as mxo

WEIGHTS = {"a": np.array([1.0, -2.0, 3.0], np.float32), "b": np.array([0.5, 0.25], np.float32)}
GRADS = [{"a": np.array([0.3, -0.1, 2.0], np.float32), "b": np.array([1.0, -1.5], np.float32)}] * 4


def twin_of_sign_descent(weight: Any, lr: float, scales: list[float]) -> Any:
    state, weight = np.zeros_like(weight), weight.copy()
    for scale in scales:
        grad = np.array([0.3, -0.1, 2.0]) * 0.5 + 0.1 * weight
        state = 0.5 * state + 0.5 * grad
        weight = weight - lr * scale * np.sign(state)
    return weight


def test_mutable_attributes() -> None:
    opt = SignDescent(learning_rate=0.1, wd=0.1, rescale_grad=0.5)
    updater, weight = mxopt.get_updater(opt), WEIGHTS["a"]
    for grads in GRADS:
        weight = updater("a", grads["a"], weight)
    expected = twin_of_sign_descent(WEIGHTS["a"], 0.1, [0.9, 0.81, 0.729, 0.6561])
    np.testing.assert_allclose(weight, expected, rtol=1e-5)
    assert opt.num_update == 4
    assert opt._index_update_count == {"a": 4}


def test_own_masters() -> None:
    updater = mxopt.get_updater(Centred(learning_rate=1e-4))
    weight = jnp.ones(3, jnp.float16)
    for grads in GRADS:
        weight = updater(0, grads["a"].astype(np.float16), weight)
    master, total = updater.states[0]
    assert weight.dtype == jnp.float16
    assert master.dtype == total.dtype == jnp.float32
    assert 0 < abs(float(master[0]) - 1) < 1e-3


def test_history_on_the_host() -> None:
    opt = Cautious(learning_rate=0.1, momentum=0.5)
    updater = mxopt.get_updater(opt)
    first = updater("b", GRADS[0]["b"], WEIGHTS["b"])
    np.testing.assert_allclose(first, WEIGHTS["b"] - 0.1 * GRADS[0]["b"], rtol=1e-6)
    second = updater("b", GRADS[0]["b"], first)
    size = np.linalg.norm(GRADS[0]["b"])
    step = -0.05 * GRADS[0]["b"] - 0.1 / size * GRADS[0]["b"]
    np.testing.assert_allclose(second, first + step, rtol=1e-6)
    assert len(opt.history["b"]) == 2


@pytest.mark.parametrize("make", [SignDescent, Centred, Cautious])
def test_lists_the_trainer_and_copies(make: Any) -> None:
    updater, trainer = mxopt.get_updater(make(learning_rate=0.1)), mxopt.Trainer(WEIGHTS, make())
    trainer.set_learning_rate(0.1)
    names, weights = list(WEIGHTS), list(WEIGHTS.values())
    for grads in GRADS:
        weights = updater(names, [grads[name] for name in names], weights)
        params = trainer.step(grads, 1)
    assert_near(params, dict(zip(names, map(jnp.asarray, weights), strict=True)))
    assert trainer.optimizer._index_update_count == dict.fromkeys(names, 4)
    for other in (pickle.loads(pickle.dumps(updater)), copy.deepcopy(updater)):
        again = other(names, [grads[name] for name in names], weights)
        assert again[0].shape == (3,)
        assert other.optimizer.num_update == 5
    stale = trainer.step({"a": None, "b": GRADS[0]["b"]}, 1, ignore_stale_grad=True)
    assert_same(stale["a"], params["a"])
    assert trainer.optimizer._index_update_count == {"a": 4, "b": 5}


def test_an_update_in_mxnets_own_form_says_what_to_change() -> None:
    class Unported(mxopt.Optimizer):
        def update(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
            self._update_count(index)

    updater = mxopt.get_updater(Unported())
    message = r"Unported.update\(0\): must return \(weight, state\), .* got NoneType"
    with pytest.raises(TypeError, match=message):
        updater(0, WEIGHTS["a"], WEIGHTS["a"])
    with pytest.raises(TypeError, match=message):
        updater([0], [WEIGHTS["a"]], [WEIGHTS["a"]])
    assert updater.states == {}


def test_aggregation_gives_lists_of_one_dtype() -> None:
    seen: list[Any] = []

    class InLists(mxopt.Optimizer):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.aggregate_num = 2

        def update(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
            seen.append((index, [w.dtype.name for w in weight]))
            self._update_count(index)
            return [w - g for w, g in zip(weight, grad, strict=True)], state

    arrays = [np.ones(2, dtype) for dtype in (np.float32, np.float16, np.float32, np.float32)]
    updater = mxopt.get_updater(InLists(multi_precision=False))
    assert updater.aggregate_updates
    with pytest.warns(UserWarning, match="half precision"):
        weights = updater(list("abcd"), arrays, arrays)
    assert [float(weight.sum()) for weight in weights] == [0.0] * 4
    assert seen == [
        (["a", "c"], ["float32"] * 2),
        (["d"], ["float32"]),
        (["b"], ["float16"]),
    ]


class NamedLists(mxo.SGD):
    """Says by the names of its arguments that it takes lists."""

    def update(self, indices: Any, weights: Any, grads: Any, states: Any) -> Any:
        return super().update(indices, weights, grads, states)


class AsMXNetsUpdater(mxo.LAMB):
    """Brings the method that MXNet's Updater calls with lists."""

    def update_multi_precision(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
        assert len(index) == len(weight)
        return super().update_multi_precision(index, weight, grad, state)


class SaysHowMany(mxopt.Optimizer):
    aggregate_num = 3

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
        self._update_count(index)
        return [w - g for w, g in zip(weight, grad, strict=True)], state


class SaysOne(AsMXNetsUpdater):
    aggregate_num = 0

    def update_multi_precision(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
        return self.update(index, weight, grad, state)


@pytest.mark.parametrize(
    ("kind", "number"),
    [(NamedLists, 4), (AsMXNetsUpdater, 45), (SaysHowMany, 3), (SaysOne, 0), (Cautious, 0)],
)
def test_a_subclass_is_called_as_mxnets_updater_calls_it(kind: Any, number: int) -> None:
    assert kind().aggregate_num == number
    calls: list[Any] = []
    weights, grads = list(WEIGHTS.values()), list(GRADS[0].values())

    class Seen(kind):
        def update_multi_precision(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
            calls.append(index)
            return super().update_multi_precision(index, weight, grad, state)

    made = Seen(learning_rate=0.1)
    made.aggregate_num = number
    several, trainer = mxopt.get_updater(made), mxopt.Trainer(WEIGHTS, kind(learning_rate=0.1))
    together = several(["a", "b"], grads, weights)
    assert calls == ([["a", "b"]] if number else ["a", "b"])
    one = mxopt.get_updater(kind(learning_rate=0.1))
    alone = [one(k, g, w) for k, g, w in zip("ab", grads, weights, strict=True)]
    assert_near(dict(zip("ab", together, strict=True)), dict(zip("ab", alone, strict=True)))
    assert_near(trainer.step(GRADS[0], 1), dict(zip("ab", alone, strict=True)))


def test_an_update_that_was_called_otherwise_than_it_expects_names_both_ways() -> None:
    class Single(mxo.SGD):
        def update_multi_precision(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
            return weight.astype(np.float32) - grad, state

    class Lists(mxo.SGD):
        def update(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
            return [w - g for w, g in zip(weight, grad, strict=True)], [state for _ in index]

    arrays = [np.float32(2.0), np.float32(1.0)]
    with pytest.raises(AttributeError, match="astype") as caught:
        mxopt.get_updater(Single())([0, 1], arrays, arrays)
    assert "lists of at most aggregate_num=4" in caught.value.__notes__[0]
    assert "aggregate_num = 0 asks for one weight" in caught.value.__notes__[0]
    updater = mxopt.get_updater(Lists())
    with pytest.raises(TypeError) as caught:
        updater([0, 1], arrays, arrays)
    assert "one weight, as aggregate_num is 0" in caught.value.__notes__[0]
    assert "aggregate_num = 4 asks for lists" in caught.value.__notes__[0]
    assert updater.optimizer._index_update_count == {}


# What an update of one's own returns.


class Promoting(mxopt.Optimizer):
    """Computes in float32 whatever the weight is of, as NumPy's scalars make it."""

    def create_state(self, index: Any, weight: Any) -> Any:
        return (jnp.zeros_like(weight),)

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
        self._update_count(index)
        lr = np.float32(self._get_lr(index)) * np.sqrt(np.float32(4.0))
        return weight.astype(np.float32) - lr * grad.astype(np.float32), state


@pytest.mark.parametrize("multi_precision", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.filterwarnings("ignore:.*half precision")
def test_the_weight_keeps_its_dtype(dtype: Any, multi_precision: bool) -> None:
    ones = jnp.ones(2, dtype)
    make = lambda: Promoting(learning_rate=0.125, multi_precision=multi_precision)  # noqa: E731
    single, lists, trainer = make(), make(), mxopt.Trainer({"a": ones}, make())
    updater = mxopt.get_updater(single)
    new = [
        updater(0, ones, ones),
        mxopt.get_updater(lists)([0], [ones], [ones])[0],
        trainer.step({"a": ones}, 1)["a"],
    ]
    assert [(weight.dtype, weight.tolist()) for weight in new] == [(dtype, [0.75, 0.75])] * 3
    master = dtype != jnp.float32 and multi_precision
    assert jax.tree.leaves(updater.states[0])[0].dtype == (jnp.float32 if master else dtype)


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (lambda w, s: (jnp.sum(w), s), ValueError, r"weight must have shape \(3,\), got \(\)"),
        (lambda w, s: (s, w), TypeError, "weight must be an array, got tuple; return"),
        (lambda w, s: (w, w), TypeError, "state must be a tuple, as it was, got an array"),
        (lambda w, s: (1.0, s), TypeError, "weight must be an array, got float"),
        (lambda w, s: (w.astype(complex), s), TypeError, "weight must be real, got dtype"),
        (lambda w, s: w, TypeError, r"must return \(weight, state\)"),
    ],
)
def test_what_cannot_be_a_weight_and_its_state_is_refused(
    returned: Any, error: type[Exception], message: str
) -> None:
    class Wrong(Promoting):
        def update(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
            return returned(jnp.asarray(weight), state)

    updater, weight = mxopt.get_updater(Wrong()), WEIGHTS["a"]
    with pytest.raises(error, match=rf"Wrong.update\(0\): {message}"):
        updater(0, weight, weight)
    with pytest.raises(error, match=rf"Wrong.update\(0\): {message}"):
        updater([0], [weight], [weight])
    with pytest.raises(error, match=rf"Wrong.update\('w'\): {message}"):
        mxopt.Trainer({"w": weight}, Wrong()).step({"w": weight}, 1)
    assert updater.states == {}


def test_lists_that_do_not_fit_are_refused() -> None:
    class Fewer(Promoting):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.aggregate_num = 4

        def update(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
            return weight[:1], state

    with pytest.raises(TypeError, match=r"Fewer.update\(\[0, 1\]\): must return .* two lists of 2"):
        mxopt.get_updater(Fewer())([0, 1], [WEIGHTS["a"]] * 2, [WEIGHTS["a"]] * 2)


# Constructors and copies.


def test_the_first_argument_is_mxnets() -> None:
    class Positional(SignDescent):
        def __init__(self, rescale: float) -> None:
            mxopt.Optimizer.__init__(self, rescale, {0: "a_weight"}, 0.125)

    opt = Positional(0.25)
    assert (opt.rescale_grad, opt.idx2name, opt.wd) == (0.25, {0: "a_weight"}, 0.125)


def test_a_forgotten_constructor_is_told() -> None:
    class Forgetful(SignDescent):
        def __init__(self) -> None:
            self.decay = 0.5

    with pytest.raises(AttributeError, match=r"'Forgetful'.*'aggregate_num'.*super\(\).__init__"):
        mxopt.get_updater(Forgetful())


@pytest.mark.parametrize("base", [mxopt.Optimizer, mxo.Adam])
def test_setstate_is_inherited_as_in_mxnet(base: Any) -> None:
    class Restored(base):
        def __setstate__(self, state: Any) -> None:
            super().__setstate__(state)
            self.restored = True

    opt = Restored(learning_rate=0.25, param_dict={0: None})
    opt._update_count([0, 0])
    other = copy.deepcopy(opt)
    assert (other.lr, other.num_update, other.param_dict, other.restored) == (0.25, 2, {}, True)
    other._update_count(0)
    assert other._all_index_update_counts == {0: {0: 3}}


def test_an_update_that_a_decorator_gives_is_called() -> None:
    def doubled(cls: Any) -> Any:
        plain = cls.update
        cls.update = lambda self, index, weight, grad, state: plain(
            self, index, weight, 2 * grad, state
        )
        return cls

    @doubled
    class Twice(mxo.SGD):
        pass

    for wrapped in (Twice(learning_rate=0.25), Twice(learning_rate=0.25)):
        [weight] = mxopt.get_updater(wrapped)([0], [jnp.ones(2)], [jnp.ones(2)])
        np.testing.assert_array_equal(weight, 0.5)


def test_rates_of_ones_own_follow_the_attributes() -> None:
    class Decayed(mxopt.SGD):
        def rates(self, lr: Any, wd: Any, t: Any) -> Any:
            return super().rates(lr * (1 + self.wd), 0.0 * wd, t)

    opt = mxopt.Optimizer(Decayed(learning_rate=0.25, wd=1.0))
    for wd, expected in ((1.0, 0.5), (3.0, 0.0)):
        opt.wd = wd
        new, _ = opt.update(0, jnp.ones(2), jnp.ones(2), ())
        np.testing.assert_array_equal(new, expected)


RATES_OF_DECAY: dict[str, Any] = {
    "branch": lambda wd: 0.5 if wd == 0 else wd,
    "square": lambda wd: wd**2,
    "root": mxopt.algorithm.sqrt,
    "bound": lambda wd: max(wd, 0.25),
    "number": float,
    "truth": lambda wd: wd or 0.125,
    "array": lambda wd: jnp.maximum(wd, 0.25),
}


@pytest.mark.parametrize("of", RATES_OF_DECAY.values(), ids=RATES_OF_DECAY)
@pytest.mark.parametrize("wd", [0.0, 0.0625])
def test_a_decay_of_ones_own_is_one_in_lists_too(of: Any, wd: float) -> None:
    class Decayed(mxopt.SGD):
        def rates(self, lr: Any, wd: Any, t: Any) -> Any:
            return super().rates(lr, of(wd), t)

    weight, grad = jnp.arange(1.0, 4.0), jnp.ones(3)
    expected = weight - 0.5 * (grad + float(of(wd)) * weight)
    opt = mxopt.Optimizer(Decayed(learning_rate=0.5, wd=wd))
    single, _ = opt.update(0, weight, grad, ())
    [listed], _ = opt.update([1], [weight], [grad], [()])
    trained = mxopt.Trainer({"w": weight}, opt).step({"w": grad}, 1)["w"]
    for got in (single, listed, trained):
        np.testing.assert_array_equal(got, expected)


RULES_OF_DECAY: dict[str, Any] = {
    "compared": lambda wd: jnp.where(wd > 0, 2 * wd, 0.5),
    "square": lambda wd: wd**2 + 0.5,
    "share": lambda wd: wd / (1 + wd) - wd + 2**-wd,
    "absolute": lambda wd: abs(-wd) * 3 + (1 - wd),
    "root": jnp.sqrt,
    "bound": lambda wd: jnp.maximum(wd, 0.5),
}


@pytest.mark.parametrize("of", RULES_OF_DECAY.values(), ids=RULES_OF_DECAY)
@pytest.mark.parametrize("wd", [0.0, 0.25])
def test_a_rule_may_compute_with_a_decay_of_zero(of: Any, wd: float) -> None:
    class Decayed(mxopt.OptimizerDef):
        def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            return weight - rates.lr * (grad + of(rates.wd) * weight), ()

    weight, grad, opt = jnp.arange(1.0, 4.0), jnp.ones(3), Decayed(learning_rate=0.5, wd=wd)
    expected = weight - 0.5 * (grad + of(jnp.float32(wd)) * weight)
    pure, _ = opt.update(0, weight, grad, opt.create_state(0, weight))
    trained = mxopt.Trainer({"w": weight}, opt).step({"w": grad}, 1)["w"]
    for got in (pure, trained):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_rates_are_all_there_or_never() -> None:
    class Odd(mxopt.SGD):
        def rates(self, lr: Any, wd: Any, t: Any) -> Any:
            return super().rates(lr, wd if t == 1 else None, t)

    opt = mxopt.Optimizer(Odd(learning_rate=0.25))
    opt.update(0, jnp.ones(2), jnp.ones(2), ())
    with pytest.raises(ValueError, match="leaves"):
        opt.update(0, jnp.ones(2), jnp.ones(2), ())
    assert opt.num_update == 1


def test_a_class_that_makes_states_and_has_no_update_is_told_so():
    class OfMXNet2(mxo.Optimizer):
        def create_state(self, index, weight):
            return jnp.zeros_like(weight)

        def step(self, indices, weights, grads, states):
            raise AssertionError

    with pytest.raises(NotImplementedError, match=r"OfMXNet2 must define update\(index, weight"):
        mxopt.Trainer({"w": jnp.ones(2)}, OfMXNet2())


class HandingOn(mxopt.Optimizer):
    """Has nothing of its own but the optimizer inside, as horovod's DistributedOptimizer."""

    def __init__(self, inner: mxopt.Optimizer) -> None:
        self._optimizer = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
        return self._optimizer.update(index, weight, grad, state)


def test_an_optimizer_without_init_reads_all_from_the_one_it_hands_on_to() -> None:
    inner = mxo.SGD(0.9, learning_rate=0.5, wd=0.1, rescale_grad=0.25, clip_gradient=2.0)
    outer = HandingOn(inner)
    inner.set_lr_mult({"a": 2.0})
    inner.set_wd_mult({"b": 0.5})
    state = inner.create_state("a", WEIGHTS["a"])
    weight, _ = outer.update("a", WEIGHTS["a"], WEIGHTS["a"], state)
    inner.lr = 0.125
    assert not np.array_equal(weight, WEIGHTS["a"])
    for name in dir(inner):
        if not name.startswith("_") and not callable(getattr(inner, name)):
            assert getattr(outer, name) == getattr(inner, name), name
    assert (outer.lr, outer.num_update, outer._get_lr("a")) == (0.125, 1, 0.25)
