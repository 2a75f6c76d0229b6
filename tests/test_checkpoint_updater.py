"""Files of Updaters and Trainers: all that the next update depends on."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import assert_same, make, tree

import jaxmxopt as mxopt
from jaxmxopt import checkpoint, lr_scheduler


def trained(optimizer: Any, steps: int = 2, dtype: Any = np.float32) -> tuple[Any, dict[str, Any]]:
    updater, weights = mxopt.get_updater(optimizer), tree(0, dtype)
    for step in range(steps):
        weights = step_of(updater, weights, step)
    return updater, weights


def step_of(updater: Any, weights: dict[str, Any], step: int) -> dict[str, Any]:
    grads = tree(10 + step, weights["a"].dtype)
    return {key: updater(key, grads[key], weight) for key, weight in weights.items()}


ALGORITHMS = [mxopt.Adam, mxopt.LBSGD, mxopt.SGLD]


@pytest.mark.parametrize("kind", ALGORITHMS, ids=lambda kind: kind.__name__)
def test_an_updater_goes_on(kind: Any, tmp_path: pathlib.Path) -> None:
    schedule = lr_scheduler.FactorScheduler(step=2, base_lr=0.1)
    opt = make(kind, lr_scheduler=schedule, lr_mult={"b": 0.5}, multi_precision=True)
    updater, weights = trained(opt, dtype=jnp.bfloat16)
    updater.optimizer.wd = 0.125
    checkpoint.save(tmp_path / "x.npz", updater)
    other = mxopt.get_updater(make(kind))
    assert checkpoint.load(tmp_path / "x.npz", other) is other
    assert other.optimizer.definition == updater.optimizer.definition
    assert other.optimizer.num_update == 2
    assert_same(other.states, updater.states)
    assert_same(step_of(other, weights, 2), step_of(updater, weights, 2))


def test_without_the_optimizer_counts_are_kept_and_numbers_are_not() -> None:
    updater, weights = trained(make(mxopt.Adam))
    other = mxopt.get_updater(mxopt.Adam(learning_rate=0.25))
    other.set_states(updater.get_states())
    assert other.optimizer.num_update == 2
    assert other.optimizer.lr == 0.25
    other.set_states(updater.get_states(dump_optimizer=True))
    assert_same(step_of(other, weights, 2), step_of(updater, weights, 2))


@pytest.mark.filterwarnings("ignore:Adam. state of half-precision weights")
@pytest.mark.parametrize("known", [False, True], ids=["new updater", "with states"])
def test_a_variance_that_was_kept_in_half_precision_is_kept_in_float32(known: bool) -> None:
    updater, weights = trained(make(mxopt.Adam), dtype=jnp.float16)
    wide = updater.states["a"].var
    updater.states["a"] = updater.states["a"]._replace(var=wide.astype(jnp.float16))
    other = trained(make(mxopt.Adam), dtype=jnp.float16)[0] if known else mxopt.get_updater("adam")
    other.set_states(updater.get_states(dump_optimizer=True))
    step_of(other, weights, 2)
    assert wide.dtype == other.states["a"].var.dtype == jnp.float32


def test_counts_go_on_on_another_device() -> None:
    updater, weights = trained(make(mxopt.Adam))
    other = mxopt.get_updater(make(mxopt.Adam))
    other.set_states(updater.get_states(dump_optimizer=True))
    moved = jax.device_put(weights, jax.devices()[3])
    assert_same(step_of(other, moved, 2), step_of(updater, weights, 2))
    assert other.optimizer.num_update == 3


def double(count: Any) -> Any:
    return 0.01 * count


def test_a_function_as_schedule_is_taken_from_the_program() -> None:
    data = trained(make(mxopt.Adam, lr_scheduler=double))[0].get_states(dump_optimizer=True)
    same = mxopt.get_updater(make(mxopt.Adam, lr_scheduler=double, beta1=0.5))
    same.set_states(data)
    assert same.optimizer.lr_scheduler is double
    assert same.optimizer.beta1 == make(mxopt.Adam).beta1  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match=r"lr_scheduler was test_checkpoint_updater.double"):
        mxopt.get_updater(make(mxopt.Adam)).set_states(data)


def test_an_updater_refuses_and_stays_as_it_was() -> None:
    updater, _ = trained(make(mxopt.Adam))
    optimizer, before = updater.optimizer, updater.get_states(dump_optimizer=True)
    wider = mxopt.get_updater(make(mxopt.Adam))
    wider("a", jnp.ones((5, 2)), jnp.ones((5, 2)))
    for data, message in [
        (before[:-1], "is truncated"),
        (before[:300] + b"!" + before[301:], "is damaged"),
        (trained(make(mxopt.SGD))[0].get_states(), "must be of Adam, got SGD"),
        (wider.get_states(), r"'a/mean' must have shape \(3, 2\), got \(5, 2\)"),
        (checkpoint.dumps({"a": np.ones(2)}), "must be of an Updater or a Trainer, got a tree"),
    ]:
        with pytest.raises(ValueError, match=f"Updater.set_states: .*{message}"):
            updater.set_states(data)
        assert updater.optimizer is optimizer
        assert updater.get_states(dump_optimizer=True) == before
    with pytest.raises(ValueError, match="must be of a tree, got one of an Updater"):
        checkpoint.loads(before, {"a": np.ones(2)})


def test_errors_name_the_call_and_the_file(tmp_path: pathlib.Path) -> None:
    updater, _ = trained(make(mxopt.Adam))
    path = tmp_path / "x.npz"
    path.write_bytes(trained(make(mxopt.SGD))[0].get_states())
    with pytest.raises(ValueError, match=r"^checkpoint.load\('.*x.npz'\): must be of Adam"):
        checkpoint.load(path, updater)
    with pytest.raises(ValueError, match=r"^checkpoint.loads: must be of Adam, got SGD"):
        checkpoint.loads(path.read_bytes(), updater)
    updater.states["a"] = {1}
    with pytest.raises(TypeError, match=r"^checkpoint.save\('.*y.npz'\): 'states/a' must be"):
        checkpoint.save(tmp_path / "y.npz", updater)
    with pytest.raises(TypeError, match=r"^checkpoint.dumps: 'states/a' must be .* got set"):
        checkpoint.dumps(updater)


def test_an_updater_of_a_custom_optimizer() -> None:
    class Own(mxopt.Optimizer):
        def create_state(self, index: Any, weight: Any) -> Any:
            return {"sum": jnp.zeros_like(weight), "parts": [None, (1, weight)]}

        def update(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
            self._update_count(index)
            return weight - grad, {**state, "sum": state["sum"] + grad}

    updater, _ = trained(Own())
    updater.optimizer.note = "kept"
    other = mxopt.get_updater(Own())
    other.optimizer.note = ""
    other.set_states(updater.get_states(dump_optimizer=True))
    assert other.optimizer.note == "kept"
    assert other.optimizer.num_update == 2
    assert other.states["a"]["parts"][1][0] == 1
    assert_same(other.states["b"]["sum"], updater.states["b"]["sum"])


def test_states_too_deep_to_be_read_are_not_written() -> None:
    updater, state = mxopt.get_updater(mxopt.SGD()), jnp.ones(1)
    for _ in range(60):
        state = [state]
    updater.states["w"] = state
    with pytest.raises(ValueError, match=r"Updater.get_states: must not nest more than 100 deep"):
        updater.get_states()


def test_a_trainer_goes_on(tmp_path: pathlib.Path) -> None:
    path, grads = tmp_path / "x.npz", tree(5)
    trainer = mxopt.Trainer(tree(0), make(mxopt.Adam))
    trainer.step(grads, 2)
    trainer.optimizer.set_learning_rate(0.5)
    checkpoint.save(path, trainer)
    assert path.read_bytes() == checkpoint.dumps(trainer)
    other = mxopt.Trainer(trainer.params, make(mxopt.Adam))
    assert checkpoint.load(path, other) is other
    assert other.learning_rate == 0.5
    assert_same(other.step(grads, 2), trainer.step(grads, 2))
    narrow = mxopt.Trainer({"a": jnp.ones((3, 2))}, make(mxopt.Adam))
    with pytest.raises(ValueError, match="1 in number, got states of 2 more, the first 'b'"):
        checkpoint.load(path, narrow)
    assert narrow.optimizer.num_update == 0
    with pytest.raises(TypeError, match="opt and params must be left out beside Trainer"):
        checkpoint.save(path, trainer, opt=make(mxopt.Adam))


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Explicit, jax.sharding.AxisType.Auto])
@pytest.mark.parametrize("devices", [1, 4])
def test_training_goes_on_over_a_mesh(devices: int, kind: Any) -> None:
    mesh = jax.make_mesh((devices,), ("d",), axis_types=(kind,))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
    weight, grad = (jax.device_put(jnp.ones((4, 2)), place) for _ in "ab")
    for name in ("nadam", "schedulefreesgd", "groupadagrad"):
        updater, other = (mxopt.get_updater(name) for _ in "ab")
        new = updater(0, grad, weight)
        other.set_states(updater.get_states(dump_optimizer=True))
        np.testing.assert_array_equal(updater(0, grad, new), other(0, grad, new))
