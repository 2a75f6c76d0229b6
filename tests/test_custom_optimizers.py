"""Optimizers written for MXNet run after the port, in the Updater and in the Trainer."""

import copy
import pickle
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from custom_optimizers import Cautious, Centred, SignDescent
from samples import assert_near, assert_same

import jaxmxopt as mxopt

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
