"""The Trainer: gluon's semantics over a tree, one compiled call a step, files, errors."""

import pathlib
import re
import warnings
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import OF_MATRICES, assert_near, assert_same, make, tree

import jaxmxopt as mxopt
from jaxmxopt import lr_scheduler


def params() -> dict[str, Any]:
    return {
        "dense": {"bias": np.full(3, 0.5, np.float32), "kernel": np.ones((2, 3), np.float32)},
        "out": [np.ones(3, np.float32), np.ones((2, 3), np.float32)],
    }


def grads(scale: float = 1.0) -> dict[str, Any]:
    return jax.tree.map(lambda leaf: scale * (leaf + np.float32(0.25)), params())


PATHS = ["dense/bias", "dense/kernel", "out/0", "out/1"]


def test_divides_by_the_batch_and_keeps_the_constructors_scale() -> None:
    trainer = mxopt.Trainer(params(), "sgd", {"learning_rate": 0.5, "rescale_grad": 2.0})
    new = trainer.step(grads(), 4)
    expected = jax.tree.map(lambda w, g: jnp.asarray(w - 0.5 * (2.0 / 4) * g), params(), grads())
    assert_near(new, expected)
    assert_same(trainer.params, new)
    assert trainer.optimizer.rescale_grad == 0.5
    before = np.asarray(new["out"][0]).copy()
    assert_near(trainer.update(grads(), 2)["out"][0], jnp.asarray(before - np.float32(0.625)))
    assert trainer.optimizer._index_update_count == dict.fromkeys(PATHS, 2)


def test_equals_the_updater_for_every_algorithm(cls: Any) -> None:
    given: Any = params()
    if cls.__name__ in OF_MATRICES:
        given = {"a": given["out"][1], "b": given["dense"]["kernel"]}
    slopes = jax.tree.map(lambda leaf: leaf + np.float32(0.25), given)
    opt = make(cls)
    trainer, updater = mxopt.Trainer(given, opt), mxopt.get_updater(opt)
    weights, tree = jax.tree.flatten(given)
    names = list(trainer.states)
    for _ in range(3):
        updater.optimizer.rescale_grad = trainer._scale / 2
        weights = updater(names, jax.tree.leaves(slopes), weights)
        trainer.step(slopes, 2)
    assert_near(trainer.params, jax.tree.unflatten(tree, weights), ulps=8)
    assert_near(trainer.states, updater.states, ulps=8)


def test_every_weight_decays_unless_something_says_otherwise() -> None:
    still = jax.tree.map(np.zeros_like, params())
    trainer = mxopt.Trainer(params(), mxopt.SGD(learning_rate=0.5, wd=0.5))
    assert_near(trainer.step(still, 1)["dense"]["bias"], jnp.full(3, 0.375))
    trainer.optimizer.set_wd_mult({"*/bias": 0.0})
    assert_near(trainer.step(still, 1)["dense"]["bias"], jnp.full(3, 0.375))
    one = SimpleNamespace(lr_mult=2.0, wd_mult=1.0)
    trainer.optimizer.param_dict = {"dense/bias": one}
    assert_near(trainer.step(still, 1)["dense"]["bias"], jnp.full(3, 0.1875))


def test_one_call_a_step_and_no_number_compiles_anew(compilations: Any) -> None:
    trainer = mxopt.Trainer(params(), "adam", {"learning_rate": 0.1, "wd": 0.1})
    slopes = jax.tree.map(jnp.asarray, grads())
    trainer.step(slopes, 4)
    with compilations as seen:
        trainer.step(slopes, 3)
        trainer.set_learning_rate(0.2)
        trainer.optimizer.beta1 = 0.5
        trainer.optimizer.wd = 0.0
        trainer.optimizer.set_lr_mult({"out/0": 0.5})
        trainer.step(slopes, 2)
    assert seen.count == 0
    assert trainer.learning_rate == 0.2


def test_the_first_decay_compiles_once_more_and_no_other(compilations: Any) -> None:
    trainer = mxopt.Trainer(params(), "adam", {"learning_rate": 0.1})
    always = mxopt.Trainer(params(), "adam", {"learning_rate": 0.1, "wd": 0.5})
    always.step(grads(), 1)
    always = mxopt.Trainer(params(), always.optimizer)
    always.optimizer.wd = 0.0
    always.optimizer._all_index_update_counts[0].clear()
    assert_near(trainer.step(grads(), 1), always.step(grads(), 1), 2)
    with compilations as seen:
        for wd in (0.1, 0.0, 0.2):
            trainer.optimizer.wd = always.optimizer.wd = wd
            assert_near(trainer.step(grads(), 1), always.step(grads(), 1), 2)
    assert seen.count <= 1


def test_owns_its_weights_and_donates_them() -> None:
    mine = jax.tree.map(jnp.asarray, params())
    trainer = mxopt.Trainer(mine, "adam")
    first = trainer.step(grads(), 1)
    trainer.step(grads(), 1)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first))
    assert_same(mine, jax.tree.map(jnp.asarray, params()))


def test_a_weight_shared_between_leaves_is_two_weights() -> None:
    shared = jnp.ones(3)
    trainer = mxopt.Trainer({"a": shared, "b": shared}, "sgd", {"learning_rate": 1.0})
    new = trainer.step({"a": shared, "b": 0 * shared}, 1)
    assert (new["a"][0], new["b"][0]) == (0.0, 1.0)


def test_stale_gradients() -> None:
    trainer = mxopt.Trainer(params(), "adam")
    some = grads()
    some["out"][1] = None
    with pytest.raises(UserWarning, match=r"Trainer.step\('out/1'\): grad must be an array"):
        trainer.step(some, 1)
    assert trainer.optimizer.num_update == 0
    new = trainer.step(some, 1, ignore_stale_grad=True)
    np.testing.assert_array_equal(new["out"][1], params()["out"][1])
    assert "out/1" not in trainer.optimizer._index_update_count
    assert float(trainer.states["out/1"].mean.sum()) == 0.0
    trainer.step(grads(), 1)
    assert trainer.optimizer._index_update_count == {**dict.fromkeys(PATHS, 2), "out/1": 1}
    trainer.step(jax.tree.map(lambda _: None, params()), 1, ignore_stale_grad=True)
    assert trainer.optimizer.num_update == 2


def test_row_sparse_gradients() -> None:
    table = np.ones((5, 2), np.float32)
    rows = mxopt.RowSparse([3], np.ones((1, 2), np.float32), (5, 2))
    trainer = mxopt.Trainer({"table": table}, "sgd", {"learning_rate": 0.5, "wd": 0.5})
    new = trainer.step({"table": rows}, 1)["table"]
    assert new[:, 0].tolist() == [1.0, 1.0, 1.0, 0.25, 1.0]


@pytest.mark.parametrize(
    ("change", "size", "error", "message"),
    [
        (lambda g: {"dense": g["dense"]}, 1, ValueError, "no gradient for 'out/0'"),
        (lambda g: {**g, "more": g["out"][0]}, 1, ValueError, "a gradient for 'more'"),
        (lambda g: {**g, "out": g["out"][::-1]}, 1, ValueError, r"step\('out/0'\): grad has shape"),
        (
            lambda g: {**g, "out": ["a", "b"]},
            1,
            TypeError,
            r"step\('out/0'\): grad must be an array, got str",
        ),
        (lambda g: g, 0, ValueError, "batch_size must be above 0"),
        (lambda g: g, None, TypeError, "batch_size must be a real number, got None"),
        (lambda g: g, np.ones(2), ValueError, "batch_size must be above 0"),
        (lambda g: g, "a", TypeError, "batch_size must be a real number, got 'a'"),
    ],
)
def test_refuses_what_does_not_fit_and_changes_nothing(
    change: Any, size: Any, error: type[Exception], message: str
) -> None:
    trainer = mxopt.Trainer(params(), "adam", {"rescale_grad": 0.5})
    with pytest.raises(error, match=message):
        trainer.step(change(grads()), size)
    assert_same(trainer.params, jax.tree.map(jnp.asarray, params()))
    assert trainer.optimizer._index_update_count == {}
    assert trainer.optimizer.rescale_grad == 0.5


def test_refuses_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="arguments must come with a name or a definition"):
        mxopt.Trainer(params(), mxopt.create("sgd"), {"learning_rate": 1.0})
    with pytest.raises(TypeError, match="'n'"):
        mxopt.Trainer({"n": np.ones(3, int)}, "sgd")
    with pytest.raises(ValueError, match="every weight must have a path of its own"):
        mxopt.Trainer({"a/b": np.ones(3), "a": {"b": np.ones(3)}}, "sgd")
    trainer = mxopt.Trainer(params(), "sgd", {"lr_scheduler": lr_scheduler.FactorScheduler(2)})
    with pytest.raises(UserWarning, match="lr_scheduler must be None"):
        trainer.set_learning_rate(0.1)


@pytest.mark.parametrize(
    ("opt", "message"),
    [
        (mxopt.SGD(wd_mult={"*/bais": 0.0}), "wd_mult['*/bais'] is of no weight; there are 'dense"),
        (mxopt.EMA(mxopt.SGD(lr_mult={0: 2.0})), "lr_mult[0] is of no weight"),
        (
            mxopt.ClipGlobalNorm(mxopt.SGD(lr_mult={"x": 2.0}), max_norm=1.0),
            "lr_mult['x'] is of no weight",
        ),
    ],
    ids=["SGD", "EMA", "ClipGlobalNorm"],
)
def test_keys_of_no_weight_are_warned_of_once(opt: Any, message: str) -> None:
    with pytest.warns(UserWarning, match=re.escape(message)) as caught:
        mxopt.Trainer(params(), opt)
    assert [warning.filename for warning in caught] == [__file__]


def test_keys_set_later_are_looked_at_too() -> None:
    trainer = mxopt.Trainer(params(), "sgd")
    trainer.optimizer.set_lr_mult({"*/bais": 0.1})
    with pytest.warns(UserWarning, match="is of no weight") as caught:
        trainer.step(grads(), 1)
    trainer.step(grads(), 1)
    assert [warning.filename for warning in caught] == [__file__]


def test_a_warning_that_is_an_error_comes_again() -> None:
    trainer = mxopt.Trainer(params(), "sgd")
    trainer.optimizer.set_lr_mult({"*/bais": 0.1})
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserWarning, match="is of no weight"):
                trainer.step(grads(), 1)


def test_loading_what_was_warned_of_warns_of_nothing(tmp_path: pathlib.Path) -> None:
    with pytest.warns(UserWarning, match="is of no weight"):
        trainer = mxopt.Trainer(params(), mxopt.SGD(lr_mult={"*/bais": 0.1}))
    trainer.save_states(tmp_path / "states.npz")
    trainer.load_states(tmp_path / "states.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.step(grads(), 1)


@pytest.mark.parametrize("what", ["weight 'a'", "weight 'b'", "state 'b/mean'"])
@pytest.mark.parametrize("alias", [False, True], ids=["itself", "alias"])
def test_what_is_written_over_is_no_gradient(
    what: str, alias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaxmxopt._core.layout.MANY", 96)
    ones = {"a": jnp.ones(3), "b": jnp.ones(3)}
    trainer = mxopt.Trainer(ones, "adam")
    trainer.step(ones, 1)
    weights = trainer.params
    array = {
        "weight 'a'": weights["a"],
        "weight 'b'": weights["b"],
        "state 'b/mean'": trainer.states["b"].mean,
    }[what]
    if alias:
        array = jax.device_put(array, may_alias=True)
    message = f"Trainer.step('a'): grad must be another array than {what}, which is donated"
    with pytest.raises(ValueError, match=re.escape(message)):
        trainer.step({**ones, "a": array}, 1)
    assert trainer.optimizer.num_update == 1
    trainer.step({**ones, "a": jnp.copy(array)}, 1)


def test_a_file_of_full_precision_is_not_for_masters(tmp_path: pathlib.Path) -> None:
    full = mxopt.Trainer({"w": jnp.ones(3)}, "adam")
    full.save_states(tmp_path / "full.npz")
    half = {"w": jnp.ones(3, jnp.float16)}
    masters = mxopt.Trainer(half, "adam", {"multi_precision": True})
    message = "the state of 'w' must be of float16 or with a master, got float32 without."
    with pytest.raises(ValueError, match=message):
        masters.load_states(tmp_path / "full.npz")
    assert masters.optimizer.multi_precision
    masters.step(half, 1)


def test_a_file_of_fewer_weights_is_refused(tmp_path: pathlib.Path) -> None:
    few = mxopt.Trainer({"w": jnp.ones(3)}, "adam")
    few.save_states(tmp_path / "few.npz")
    more = mxopt.Trainer({"w": jnp.ones(3), "v": jnp.ones(2)}, "adam")
    with pytest.raises(ValueError, match="the file must hold all states, got none of 'v'"):
        more.load_states(tmp_path / "few.npz")


def test_masters_are_for_half_precision_alone(tmp_path: pathlib.Path) -> None:
    half = {"w": jnp.ones(3, jnp.float16)}
    trainer = mxopt.Trainer(half, "adam", {"multi_precision": True})
    trainer.save_states(tmp_path / "half.npz")
    with pytest.raises(ValueError, match="'w' must be without a master, as its weight is of float"):
        mxopt.Trainer({"w": jnp.ones(3)}, "adam").load_states(tmp_path / "half.npz")
    mxopt.Trainer(half, "adam", {"multi_precision": True}).load_states(tmp_path / "half.npz")


def test_what_cannot_be_written_is_named(tmp_path: pathlib.Path) -> None:
    trainer = mxopt.Trainer(params(), "sgd")
    with pytest.raises(FileNotFoundError, match=r"nowhere/x.npz'$"):
        trainer.save_states(tmp_path / "nowhere" / "x.npz")


def test_goes_on_from_a_file(tmp_path: pathlib.Path) -> None:
    schedule = lr_scheduler.FactorScheduler(step=2, factor=0.5, base_lr=0.1)
    trainer = mxopt.Trainer(params(), "adam", {"lr_scheduler": schedule})
    for _ in range(3):
        trainer.step(grads(), 2)
    trainer.save_states(tmp_path / "trainer.npz")
    other = mxopt.Trainer(trainer.params, "adam")
    held = other.optimizer
    other.load_states(tmp_path / "trainer.npz")
    assert other.optimizer is held
    assert other.learning_rate == trainer.learning_rate == 0.05
    assert_same(other.step(grads(), 2), trainer.step(grads(), 2))
    assert "4 weights" in repr(other)


HALVES = {name: leaf.astype(jnp.bfloat16) for name, leaf in tree().items()}


@pytest.mark.parametrize(
    "opt",
    [
        mxopt.SGD(momentum=0.9, multi_precision=True),
        mxopt.EMA(mxopt.Adam(multi_precision=True)),
        mxopt.Groups({"a": mxopt.SGD(), "*": mxopt.Adam(multi_precision=True)}),
    ],
    ids=lambda opt: type(opt).__name__,
)
@pytest.mark.filterwarnings("ignore:.*half-precision weights:UserWarning")
def test_other_weights_can_be_set_and_masters_follow(opt):
    trainer, others = mxopt.Trainer(HALVES, opt), jax.tree.map(lambda w: w + 8, HALVES)
    trainer.step(HALVES, 1)
    before = trainer.states
    trainer.params = others
    assert_same(trainer.params, others)
    for name, state in trainer.states.items():
        old, master = before[name], getattr(state, "master", None)
        if master is not None:
            assert_same(master, others[name].astype(jnp.float32))
            old, state = old._replace(master=None), state._replace(master=None)
        assert_same(state, old)
    trainer.step(HALVES, 1)


def test_weights_that_are_set_must_be_like_those_before():
    trainer = mxopt.Trainer(tree(), "sgd")
    for wrong in ({**tree(), "z": jnp.ones(2)}, {**tree(), "a": jnp.ones(2)}, HALVES):
        with pytest.raises(ValueError, match=r"^Trainer\.params\('[az]'\): a weight must have"):
            trainer.params = wrong
    assert_same(trainer.params, tree())


def test_weights_that_are_set_go_by_their_names():
    layers = [jnp.full(2, float(n)) for n in range(12)]
    trainer = mxopt.Trainer([jnp.zeros(2)] * 12, "sgd")
    trainer.params = {str(n): layer for n, layer in enumerate(layers)}
    assert_same(trainer.params, layers)


# gluon's signature, and what subclasses override.


@pytest.mark.parametrize("kvstore", [None, "local", "device", "nccl"])
@pytest.mark.parametrize("update_on_kvstore", [None, False, True])
def test_stores_of_one_process_mean_nothing(kvstore: Any, update_on_kvstore: Any) -> None:
    trainer = mxopt.Trainer(params(), "sgd", {}, kvstore, None, update_on_kvstore)
    plain = mxopt.Trainer(params(), "sgd")
    assert_same(trainer.step(grads(), 2), plain.step(grads(), 2))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kvstore": "dist_sync"}, "kvstore must be one of .* got 'dist_sync'.* jax.distributed"),
        ({"kvstore": SimpleNamespace(type="dist_async")}, "kvstore must be .* got 'dist_async'"),
        ({"compression_params": {"type": "2bit"}}, "compression_params must be None, got"),
        ({"update_on_kvstore": "yes"}, "update_on_kvstore must be None, False or True, got"),
    ],
)
def test_other_stores_are_refused(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^Trainer: {message}"):
        mxopt.Trainer(params(), "sgd", **given)


class Doubling(mxopt.Trainer):
    """Adds up the gradients of two like workers, as horovod's Trainer does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._scale /= 2

    def _allreduce_grads(self, grads: Any) -> Any:
        return jax.tree.map(lambda grad: 2 * grad, grads)


def test_a_step_calls_what_a_subclass_overrides() -> None:
    trainer, plain = (kind(params(), "sgd", {"wd": 0.5}) for kind in (Doubling, mxopt.Trainer))
    assert_same(trainer.step(grads(), 2), plain.step(grads(), 2))
    reduced = trainer.allreduce_grads(grads())
    assert_same(trainer.update(reduced, 2), plain.update(plain.allreduce_grads(grads()), 2))
    assert plain.allreduce_grads() is None
    assert [weight.shape for weight in trainer._params] == [(3,), (2, 3), (3,), (2, 3)]
    assert trainer._optimizer is trainer.optimizer


def test_a_step_does_not_call_the_public_allreduce_grads() -> None:
    """gluon's step calls `_allreduce_grads`; what a subclass puts around the other is not run."""

    class Logged(Doubling):
        calls = 0

        def allreduce_grads(self, grads: Any = None) -> Any:
            self.calls += 1
            return super().allreduce_grads(grads)

    trainer, plain = Logged(params(), "sgd"), Doubling(params(), "sgd")
    assert_same(trainer.step(grads(), 2), plain.step(grads(), 2))
    assert trainer.calls == 0


def test_a_subclass_that_returns_no_gradients_is_told() -> None:
    class Unported(mxopt.Trainer):
        def _allreduce_grads(self, grads: Any) -> Any:
            return None

    with pytest.raises(TypeError, match=r"Unported._allreduce_grads: must return the gradients"):
        Unported(params(), "sgd").step(grads(), 1)
