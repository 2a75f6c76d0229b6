"""States of custom optimizers may be NamedTuples, dataclasses and plain objects of arrays."""

import copy
import dataclasses
import pickle
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import assert_same

import jaxmxopt as mxopt
from jaxmxopt._files.objects import classes_beside

WEIGHTS = {"a": np.array([1.0, -2.0, 3.0], np.float32), "b": np.array([0.5, 0.25], np.float32)}
GRADS = {"a": np.array([0.3, -0.1, 2.0], np.float32), "b": np.array([1.0, -1.5], np.float32)}


class Named(NamedTuple):
    mean: Any
    past: Any = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    mean: Any
    past: Any = None


class Slotted:
    """What a class with `__slots__` and an `__init__` of its own keeps."""

    __slots__ = ("mean", "past")

    def __init__(self, mean: Any, past: Any = None) -> None:
        self.mean, self.past = mean, past


class Plain:
    """As the state of sockeye's Eve: attributes, a loss among them, and another object inside."""

    def __init__(self, mean: Any, past: Any = None) -> None:
        self.mean, self.past = mean, past
        self.inside = {"loss": 1.5, "counts": [1, Slotted(mean * 0, None)]}


KINDS = [Named, Frozen, Slotted, Plain]


class Mean(mxopt.Optimizer):
    """Keeps a mean of gradients, and the weight before, in an object."""

    def __init__(self, kind: type, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = kind

    def create_state(self, index: Any, weight: Any) -> Any:
        return self.kind(jnp.zeros_like(weight))

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
        self._update_count(index)
        mean = 0.5 * state.mean + grad
        if isinstance(state, (Slotted, Plain)):
            state.mean, state.past = mean, weight
        else:
            state = self.kind(mean, weight)
        return weight - self._get_lr(index) * mean, state


def stepped(updater: mxopt.Updater, weights: dict[str, Any]) -> dict[str, Any]:
    return {key: updater(key, GRADS[key], weight) for key, weight in weights.items()}


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def trained(request: pytest.FixtureRequest) -> tuple[mxopt.Updater, dict[str, Any], Any]:
    """An updater after a step, the weights, and those after one more step."""
    updater = mxopt.get_updater(Mean(request.param, learning_rate=0.1))
    weights = stepped(updater, WEIGHTS)
    return updater, weights, stepped(copy.deepcopy(updater), weights)


def test_they_are_copied_and_pickled(trained: Any) -> None:
    updater, weights, expected = trained
    for again in (copy.deepcopy(updater), pickle.loads(pickle.dumps(updater))):
        assert_same(stepped(again, weights), expected)
    assert_same(updater.states["a"].past, jnp.asarray(WEIGHTS["a"]))


def test_a_new_updater_goes_on_from_their_bytes(trained: Any) -> None:
    updater, weights, expected = trained
    for dumps in (False, True):
        kind = updater.optimizer.kind
        again = mxopt.get_updater(Mean(kind, learning_rate=0.1))
        again.set_states(updater.get_states(dumps))
        assert type(again.states["a"]) is kind
        assert_same(stepped(again, weights), expected)
    if kind is Plain:
        inside = again.states["a"].inside
        assert (inside["loss"], type(inside["counts"][1])) == (1.5, Slotted)


def test_a_trainer_saves_and_loads_them(trained: Any) -> None:
    _, weights, expected = trained
    kind = trained[0].optimizer.kind
    trainer = mxopt.Trainer(WEIGHTS, Mean(kind, learning_rate=0.1))
    trainer.step(GRADS, 1)
    with tempfile.TemporaryDirectory() as folder:
        trainer.save_states(str(Path(folder, "states")))
        again = mxopt.Trainer(weights, Mean(kind, learning_rate=0.1))
        again.load_states(str(Path(folder, "states")))
    assert_same(again.step(GRADS, 1), expected)


def test_arrays_inside_are_where_their_weight_is(trained: Any) -> None:
    updater = trained[0]
    again = mxopt.get_updater(Mean(updater.optimizer.kind, learning_rate=0.1))
    again.set_states(updater.get_states())
    moved = again.sync_state_context(again.states["a"], jax.devices()[0])
    assert type(moved) is type(again.states["a"])
    assert moved.mean.committed


def test_a_state_of_another_weight_is_refused(trained: Any) -> None:
    updater = trained[0]
    kind = updater.optimizer.kind
    other = mxopt.get_updater(Mean(kind, learning_rate=0.1))
    other("a", np.ones(7, np.float32), np.ones(7, np.float32))
    with pytest.raises(ValueError, match=r"'a/.*mean' must have shape"):
        other.set_states(updater.get_states())
    assert other.states["a"].mean.shape == (7,)


def test_a_file_names_only_classes_beside_the_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    updater = mxopt.get_updater(Mean(Plain, learning_rate=0.1))
    stepped(updater, WEIGHTS)
    data = updater.get_states()
    known = classes_beside(Mean, [])
    assert (Plain.__module__, "Plain") in known
    # The first would remove a folder when an object of it goes; of none a module is imported.
    assert not {("tempfile", "TemporaryDirectory"), ("pathlib", "Path")} & known.keys()
    monkeypatch.setattr(Plain, "__del__", lambda self: None, raising=False)
    with pytest.raises(ValueError, match=r"Plain, which is not known beside the optimizer"):
        mxopt.get_updater(Mean(Plain)).set_states(data)


def test_what_a_file_cannot_hold_is_named() -> None:
    class Holding(Mean):
        def create_state(self, index: Any, weight: Any) -> Any:
            return Plain(jnp.zeros_like(weight), np.random.default_rng())

        def update(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
            return weight, state

    updater = mxopt.get_updater(Holding(Plain))
    stepped(updater, WEIGHTS)
    with pytest.raises(TypeError, match=r"'states/a/past' must be an array.* got Generator"):
        updater.get_states()
